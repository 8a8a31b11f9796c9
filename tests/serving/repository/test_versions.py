"""Versions come and go by policy: the new one is READY before the old one goes, and a bad one never rules."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from export.package.errors import PackageError, Reason
from export.package.read import Package
from serving.engine.messages import ModelKey
from serving.errors import FailedPrecondition
from serving.families.calibration import Calibration
from serving.repository.control import Control
from serving.repository.policy import Policy
from serving.repository.repository import Repository
from serving.repository.version import State
from tests.serving.api.fake_engine import FakeEngine, FakeModel
from tests.serving.api.fake_models import DIGITS, LETTERS, models_in, read_fake

LATEST = Policy.parse("latest:1")


class Engine(FakeEngine):
    """Loads and unloads are counted; a version may be slow to warm, or fail to."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[ModelKey] = []
        self.fails: set[int] = set()
        self.gates: dict[int, threading.Event] = {}

    def load(
        self,
        key: ModelKey,
        package: Package,
        calibration: Calibration | None = None,
        warming: Callable[[], object] = lambda: None,
    ) -> FakeModel:
        self.loads.append(key)
        warming()
        if key.version in self.gates:
            self.gates[key.version].wait(10.0)
        if key.version in self.fails:
            raise RuntimeError("its warm-up went wrong")
        return super().load(key, package, calibration)


def read_marked(folder: Path) -> Package:
    """A package whose folder holds a file called broken is refused."""
    if (folder / "broken").exists():
        raise PackageError(Reason.WRONG_HASH, folder / "net.onnx", "it was changed", "Restore it")
    return read_fake(folder)


def states(repository: Repository, name: str = DIGITS) -> dict[int, str]:
    return {v.key.version: v.state.value for v in repository.versions(name)}


def answering(repository: Repository) -> int:
    return repository.ready(DIGITS, None).key.version


def run(
    root: Path, steps: Callable[[Repository, Engine], Awaitable[None]], policy: Policy | None = LATEST
) -> None:
    async def all_of_it() -> None:
        engine = Engine()
        repository = Repository(root, engine, read_marked, policy=policy)
        await steps(repository, engine)
        await repository.close()

    asyncio.run(asyncio.wait_for(all_of_it(), 20.0))


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("did not happen")


def test_a_policy_keeps_the_highest_numbers() -> None:
    assert Policy.parse("all").kept([3, 1, 2]) == {1, 2, 3}
    assert Policy.parse("latest:2").kept([3, 1, 10]) == {3, 10}
    assert LATEST.kept([]) == frozenset()


def test_only_the_latest_is_loaded_where_the_policy_says_so(tmp_path: Path) -> None:
    async def steps(repository: Repository, engine: Engine) -> None:
        await repository.load_all()
        assert states(repository) == {1: "unloaded", 2: "unloaded", 10: "ready"}
        assert [key.version for key in engine.loads if key.name == DIGITS] == [10]

    run(models_in(tmp_path, f"{DIGITS}/1", f"{DIGITS}/2", f"{DIGITS}/10", f"{LETTERS}/3"), steps)


def test_where_the_latest_fails_at_the_start_the_one_below_it_answers(tmp_path: Path) -> None:
    async def steps(repository: Repository, engine: Engine) -> None:
        engine.fails = {3}
        (tmp_path / DIGITS / "2" / "broken").touch()
        await repository.load_all()
        assert states(repository) == {1: "ready", 2: "failed", 3: "failed"}
        assert "warm-up went wrong" in repository.find(DIGITS, 3).message
        assert "net.onnx: it was changed" in repository.find(DIGITS, 2).message

    run(models_in(tmp_path, *(f"{DIGITS}/{version}" for version in (1, 2, 3))), steps)


def test_only_named_models_are_loaded_at_the_start(tmp_path: Path) -> None:
    async def steps(repository: Repository, engine: Engine) -> None:
        await Control(repository, names=frozenset({LETTERS})).start()
        assert (states(repository), states(repository, LETTERS)) == ({1: "unloaded"}, {1: "ready"})

    run(models_in(tmp_path, f"{DIGITS}/1", f"{LETTERS}/1"), steps)


def test_a_new_version_answers_once_it_is_ready_and_the_old_one_goes_when_its_requests_have(
    tmp_path: Path,
) -> None:
    async def steps(repository: Repository, engine: Engine) -> None:
        await repository.load_all()
        models_in(tmp_path, f"{DIGITS}/2")
        engine.gates[2] = threading.Event()
        with repository.lease(DIGITS, None) as leased:
            assert leased.key.version == 1
            loading = asyncio.ensure_future(repository.load(DIGITS, None, wait=True))
            await until(lambda: states(repository) == {1: "ready", 2: "warming"})
            assert answering(repository) == 1
            engine.gates[2].set()
            await loading
            assert answering(repository) == 2
            await until(lambda: states(repository)[1] == "unloading")
            await asyncio.sleep(0.05)
            assert not engine.unloaded  # a request of it still runs
        await until(lambda: states(repository) == {1: "unloaded", 2: "ready"})
        assert engine.unloaded == [ModelKey(DIGITS, 1)]

    run(models_in(tmp_path, f"{DIGITS}/1"), steps)


@pytest.mark.parametrize("how", ["verification", "warm-up"])
def test_a_new_version_that_fails_leaves_the_old_one_answering_and_says_why(tmp_path: Path, how: str) -> None:
    async def steps(repository: Repository, engine: Engine) -> None:
        await repository.load_all()
        models_in(tmp_path, f"{DIGITS}/2")
        if how == "verification":
            (tmp_path / DIGITS / "2" / "broken").touch()
        else:
            engine.fails = {2}
        loaded = await repository.load(DIGITS, None, wait=True)
        assert loaded.state is State.FAILED
        assert ("it was changed" if how == "verification" else "warm-up went wrong") in loaded.message
        assert answering(repository) == 1
        assert not engine.unloaded

    run(models_in(tmp_path, f"{DIGITS}/1"), steps)


def test_a_version_that_is_asked_for_by_number_is_not_superseded(tmp_path: Path) -> None:
    async def steps(repository: Repository, engine: Engine) -> None:
        await repository.load_all()
        await repository.load(DIGITS, 1, wait=True)
        models_in(tmp_path, f"{DIGITS}/3")
        await repository.load(DIGITS, None, wait=True)
        await until(lambda: states(repository) == {1: "ready", 2: "unloaded", 3: "ready"})
        await repository.unload(DIGITS, 3)
        assert answering(repository) == 1  # an operator's way back

    run(models_in(tmp_path, f"{DIGITS}/1", f"{DIGITS}/2"), steps)


def test_loading_what_unloads_loads_it_again_afterwards(tmp_path: Path) -> None:
    async def steps(repository: Repository, engine: Engine) -> None:
        await repository.load_all()
        with repository.lease(DIGITS, None):
            unloading = asyncio.ensure_future(repository.unload(DIGITS, None))
            await until(lambda: states(repository) == {1: "unloading"})
            with pytest.raises(FailedPrecondition, match="UNLOADING"):
                repository.ready(DIGITS, None)
            loading = asyncio.ensure_future(repository.load(DIGITS, None, wait=True))
            await asyncio.sleep(0.02)
        await unloading
        assert (await loading).state is State.READY
        assert engine.loads == [ModelKey(DIGITS, 1)] * 2

    run(models_in(tmp_path, f"{DIGITS}/1"), steps, policy=None)


def test_a_caller_who_leaves_does_not_stop_an_unloading(tmp_path: Path) -> None:
    async def steps(repository: Repository, engine: Engine) -> None:
        await repository.load_all()
        with repository.lease(DIGITS, None):
            unloading = asyncio.ensure_future(repository.unload(DIGITS, None))
            await until(lambda: states(repository) == {1: "unloading"})
            unloading.cancel()
            await asyncio.sleep(0.02)
        await until(lambda: states(repository) == {1: "unloaded"})

    run(models_in(tmp_path, f"{DIGITS}/1"), steps)


def test_following_the_folder_loads_what_comes_and_unloads_what_goes(tmp_path: Path) -> None:
    async def steps(repository: Repository, engine: Engine) -> None:
        await repository.load_all()
        models_in(tmp_path, f"{DIGITS}/2", f"{LETTERS}/1")
        await repository.follow()
        assert (states(repository), states(repository, LETTERS)) == (
            {1: "unloaded", 2: "ready"},
            {1: "ready"},
        )
        shutil.rmtree(tmp_path / DIGITS / "2")
        shutil.rmtree(tmp_path / LETTERS)
        await repository.follow()
        assert answering(repository) == 1
        assert states(repository)[1] == "ready"
        await repository.follow()
        assert (states(repository), states(repository, LETTERS)) == ({1: "ready"}, {})

    run(models_in(tmp_path, f"{DIGITS}/1"), steps)


def test_going_back_by_taking_a_version_away_never_leaves_the_model_without_an_answer(tmp_path: Path) -> None:
    async def steps(repository: Repository, engine: Engine) -> None:
        await repository.load_all()
        engine.gates[1] = threading.Event()
        shutil.rmtree(tmp_path / DIGITS / "2")
        following = asyncio.ensure_future(repository.follow())
        await until(lambda: states(repository)[1] == "warming")
        assert answering(repository) == 2
        engine.gates[1].set()
        await following
        assert answering(repository) == 1

    run(models_in(tmp_path, f"{DIGITS}/1", f"{DIGITS}/2"), steps)


def test_a_repaired_version_is_tried_again_and_an_unrepaired_one_is_not(tmp_path: Path) -> None:
    async def steps(repository: Repository, engine: Engine) -> None:
        broken = tmp_path / DIGITS / "2" / "broken"
        broken.touch()
        await repository.load_all()
        await repository.follow()
        assert states(repository) == {1: "ready", 2: "failed"}
        assert ModelKey(DIGITS, 2) not in engine.loads
        broken.unlink()
        await repository.follow()
        assert states(repository) == {1: "unloaded", 2: "ready"}

    run(models_in(tmp_path, f"{DIGITS}/1", f"{DIGITS}/2"), steps)


def test_files_that_change_under_a_loaded_version_are_noticed_and_not_taken(tmp_path: Path) -> None:
    async def steps(repository: Repository, engine: Engine) -> None:
        await repository.load_all()
        (tmp_path / DIGITS / "1" / "model.yaml").write_text("other")
        await repository.follow()
        assert states(repository) == {1: "ready"}
        assert "publish them as a new version" in repository.find(DIGITS, 1).message
        assert len(engine.loads) == 1

    run(models_in(tmp_path, f"{DIGITS}/1"), steps)


def test_modes_say_who_decides(tmp_path: Path) -> None:
    async def steps(repository: Repository, engine: Engine) -> None:
        await repository.load_all()
        fixed, polled = Control(repository, "none"), Control(repository, "poll", poll_s=0.02)
        for refused in (fixed.load(DIGITS, None, True), fixed.unload(DIGITS, None), polled.unload(DIGITS, 1)):
            with pytest.raises(FailedPrecondition) as caught:
                await refused
            assert caught.value.reason == "REPOSITORY_MODE"
        models_in(tmp_path, f"{DIGITS}/2")
        assert (await polled.load(DIGITS, None, wait=True)).key.version == 2
        polling = asyncio.ensure_future(polled.run())
        models_in(tmp_path, f"{DIGITS}/3")
        await until(lambda: states(repository) == {1: "unloaded", 2: "unloaded", 3: "ready"})
        polling.cancel()

    run(models_in(tmp_path, f"{DIGITS}/1"), steps)
