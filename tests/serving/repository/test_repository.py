"""Versions: scanning, defaults, states, failures, calibration, loads at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from export.package.read import Package
from serving.engine.messages import ModelKey
from serving.errors import FailedPrecondition, NotFound
from serving.families.calibration import Calibration
from serving.repository.loader import LoadedModel
from serving.repository.repository import Repository
from serving.repository.version import State
from tests.serving.api.fake_engine import FakeEngine, FakeModel
from tests.serving.api.fake_models import DIGITS, LETTERS, models_in, read_fake


class Recording(FakeEngine):
    """Remembers calibrations, and how many loads ran at once."""

    def __init__(self) -> None:
        super().__init__()
        self.calibrations: dict[ModelKey, Calibration | None] = {}
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()

    def load(
        self,
        key: ModelKey,
        package: Package,
        calibration: Calibration | None = None,
        warming: Callable[[], object] = lambda: None,
    ) -> FakeModel:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        threading.Event().wait(0.02)
        with self._lock:
            self._now -= 1
        self.calibrations[key] = calibration
        return super().load(key, package, calibration, warming)


def loaded(root: Path, engine: FakeEngine | None = None) -> Repository:
    repository = Repository(root, engine or FakeEngine(), read_fake)
    asyncio.run(repository.load_all())
    return repository


def test_all_versions_load_and_the_highest_answers(tmp_path: Path) -> None:
    repository = loaded(models_in(tmp_path, f"{DIGITS}/1", f"{DIGITS}/2", f"{DIGITS}/10", f"{LETTERS}/3"))
    assert [v.key for v in repository.versions()] == [
        ModelKey(DIGITS, 1),
        ModelKey(DIGITS, 2),
        ModelKey(DIGITS, 10),
        ModelKey(LETTERS, 3),
    ]
    assert repository.ready(DIGITS, None).key.version == 10
    assert repository.ready(DIGITS, 2).key.version == 2


def test_what_is_no_version_is_left_alone(tmp_path: Path) -> None:
    models_in(
        tmp_path, f"{DIGITS}/1", f"{DIGITS}/01", f"{DIGITS}/x", f"{DIGITS}/0", "Not A Name/1", ".hidden/1"
    )
    (tmp_path / "file").write_text("")
    assert [v.key for v in loaded(tmp_path).versions()] == [ModelKey(DIGITS, 1)]


@pytest.mark.parametrize("name", ["nobody", "..", "/etc", f"{DIGITS}/1", ""])
def test_names_that_are_not_listed_are_not_found(tmp_path: Path, name: str) -> None:
    repository = loaded(models_in(tmp_path, f"{DIGITS}/1"))
    with pytest.raises(NotFound):
        repository.find(name, None)
    with pytest.raises(NotFound):
        asyncio.run(repository.load(name, None, wait=True))


def test_failed_version_leaves_the_others_and_says_why(tmp_path: Path) -> None:
    class Choosy(FakeEngine):
        def load(
            self,
            key: ModelKey,
            package: Package,
            calibration: Calibration | None = None,
            warming: Callable[[], object] = lambda: None,
        ) -> FakeModel:
            if key.version == 2:
                raise RuntimeError("no memory")
            return super().load(key, package, calibration, warming)

    repository = loaded(models_in(tmp_path, f"{DIGITS}/1", f"{DIGITS}/2"), Choosy())
    assert repository.find(DIGITS, 2).state is State.FAILED
    assert repository.ready(DIGITS, None).key.version == 1
    with pytest.raises(FailedPrecondition, match="no memory") as caught:
        repository.ready(DIGITS, 2)
    assert caught.value.reason == "NOT_READY"


def test_at_most_two_loads_run_at_once(tmp_path: Path) -> None:
    engine = Recording()
    loaded(models_in(tmp_path, *(f"{DIGITS}/{version}" for version in range(1, 8))), engine)
    assert engine.most_at_once == 2


def test_calibration_beside_the_package_is_passed_on_and_a_foreign_one_is_not(tmp_path: Path) -> None:
    models_in(tmp_path, f"{DIGITS}/1", f"{DIGITS}/2", f"{DIGITS}/3")
    made = Calibration.fit("d" * 64, {"score": [1.0, 2.0]}, {})
    made.write(tmp_path / DIGITS / "calibration-1.json", "d" * 64)
    made.write(tmp_path / DIGITS / "calibration-2.json", "e" * 64)
    engine = Recording()
    repository = loaded(tmp_path, engine)
    kept = engine.calibrations[ModelKey(DIGITS, 1)]
    assert kept is not None
    assert engine.calibrations[ModelKey(DIGITS, 2)] is None
    assert engine.calibrations[ModelKey(DIGITS, 3)] is None
    assert "calibration left out" in repository.find(DIGITS, 2).message
    assert repository.find(DIGITS, 3).message == ""


def test_unload_without_a_version_unloads_all_and_version_folders_may_vanish(tmp_path: Path) -> None:
    engine = FakeEngine()

    async def steps() -> Repository:
        repository = Repository(models_in(tmp_path, f"{DIGITS}/1", f"{DIGITS}/2"), engine, read_fake)
        await repository.load_all()
        await repository.unload(DIGITS, None)
        (tmp_path / DIGITS / "2").rmdir()
        await repository.load(DIGITS, None, wait=True)
        return repository

    repository = asyncio.run(steps())
    assert {key.version for key in engine.unloaded} == {1, 2}
    assert repository.ready(DIGITS, None).key.version == 1
    with pytest.raises(NotFound):
        repository.find(DIGITS, 2)


def test_loading_and_unloading_at_the_same_time_end_in_the_last_state(tmp_path: Path) -> None:
    async def steps() -> State:
        repository = Repository(models_in(tmp_path, f"{DIGITS}/1"), Recording(), read_fake)
        loading = asyncio.ensure_future(repository.load(DIGITS, None, wait=True))
        await asyncio.sleep(0)
        await repository.unload(DIGITS, None)
        await loading
        return repository.find(DIGITS, 1).state

    assert asyncio.run(steps()) is State.UNLOADED


def test_loaded_model_of_the_engine_has_what_the_repository_needs() -> None:
    from serving.engine.model import LoadedModel as EngineModel

    wanted = {name for name in vars(LoadedModel) if not name.startswith("_")}
    assert wanted <= set(EngineModel.__dataclass_fields__)
