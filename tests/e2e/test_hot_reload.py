"""Versions change under traffic: a real server, real packages, and not one request that fails."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import pytest

from deploy.demo.server import Running, serving
from pxserve import Client, PxserveError
from pxserve.models import ModelState
from tests.e2e.test_release import wait_for_rows

pytestmark = pytest.mark.xdist_group("e2e")

VAE, DIFFUSION = "digits-vae", "digits-diffusion"


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """A repository of its own, with one version of one model."""
    target = tmp_path / "models"
    shutil.copytree(models / VAE / "1", target / VAE / "1")
    return target


class Traffic:
    """Requests without a version or a pause, from two threads; counts versions and reasons."""

    def __init__(self, target: str, model: str = VAE) -> None:
        self.seen: Counter[str] = Counter()
        self._target, self._model = target, model
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with Client(self._target, timeout_s=30.0) as client:
            while not self._stop.is_set():
                try:
                    answer = client.sample(self._model, 2)
                    self.seen[f"version {answer.provenance.version}"] += 1
                except PxserveError as error:
                    self.seen[error.reason] += 1


def wait_until(condition: Callable[[], bool], seconds: float = 40.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "did not happen"
        time.sleep(0.05)


def state(client: Client, version: int) -> str:
    return {m.version: str(m.state) for m in client.list_models() if m.name == VAE}.get(version, "")


def publish(folder: Path, version: int, damage: bool = False) -> None:
    """As an exporter does it: written aside, then renamed."""
    aside = folder.parent / f"aside-{version}"
    shutil.copytree(folder / VAE / "1", aside)
    if damage:
        graph = next(aside.glob("*.onnx"))
        graph.write_bytes(graph.read_bytes()[:-1] + b"\x00")
    aside.rename(folder / VAE / str(version))


def test_new_versions_take_over_under_traffic_and_damaged_ones_do_not(folder: Path, tmp_path: Path) -> None:
    flags = ("--repository-mode", "poll", "--poll-s", "0.3", "--version-policy", "latest:1")
    with (
        serving(folder, log=tmp_path / "server.log", flags=flags) as running,
        Client(running.target, timeout_s=30.0) as client,
        Traffic(running.target) as traffic,
    ):
        wait_until(lambda: traffic.seen["version 1"] >= 5)
        publish(folder, 2)
        wait_until(lambda: traffic.seen["version 2"] >= 5)
        wait_until(lambda: state(client, 1) == ModelState.UNLOADED)
        publish(folder, 3, damage=True)
        wait_until(lambda: state(client, 3) == ModelState.FAILED)
        assert "SHA-256" in client.get_model(VAE, version=3).state_message
        shutil.rmtree(folder / VAE / "2")  # back to the first one
        wait_until(lambda: state(client, 1) == ModelState.READY)
        known = traffic.seen["version 1"]
        wait_until(lambda: traffic.seen["version 1"] >= known + 5)
    assert set(traffic.seen) == {"version 1", "version 2"}


@pytest.fixture
def two(folder: Path, models: Path, tmp_path: Path) -> Iterator[Running]:
    (folder / DIFFUSION).symlink_to(models / DIFFUSION)
    with serving(folder, log=tmp_path / "server.log", flags=("--drain-s", "60")) as running:
        yield running


def test_loading_and_unloading_under_fire_harms_nobody_else_and_a_second_signal_ends_at_once(
    two: Running,
) -> None:
    with (
        Client(two.target, timeout_s=30.0) as client,
        Traffic(two.target, DIFFUSION) as beside,
        Traffic(two.target) as under_fire,
    ):
        for _ in range(4):
            client.unload_model(VAE)
            assert client.load_model(VAE, wait=True).state == ModelState.READY
        known = under_fire.seen["version 1"]
        wait_until(lambda: under_fire.seen["version 1"] > known)
    assert set(beside.seen) == {"version 1"}
    assert set(under_fire.seen) <= {"version 1", "NOT_READY"}
    cut_off(two)


def cut_off(running: Running) -> None:
    """A drain would take a minute; the second signal does not wait for it."""
    reasons: list[str] = []

    def ask() -> None:
        with Client(running.target) as client:
            try:
                for _ in range(100):
                    client.sample(DIFFUSION, 64, sampler="ddpm", steps=100)
            except PxserveError as error:
                reasons.append(error.code.name)

    asking = threading.Thread(target=ask)
    asking.start()
    assert wait_for_rows(running, held=True, within_s=5.0)
    running.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    begun = time.monotonic()
    running.process.send_signal(signal.SIGINT)
    running.process.wait(10.0)
    assert time.monotonic() - begun < 5.0
    asking.join(10.0)
    assert reasons == ["UNAVAILABLE"]
