"""Latency is made to rise in five ways, and each time the overview's panels say why.

Slow, since it needs the machine to itself: ``pytest -m slow tests/deploy/test_causes.py``.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest

from deploy.demo.server import serving
from pxserve import Client, PxserveError
from tests.deploy.load import DIFFUSION
from tests.deploy.prometheus import ROOT, Prometheus, binary, running
from tests.deploy.queries import panels

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("monitoring"), pytest.mark.timeout(400)]

STORY_S = 14.0  # of which the last six seconds are looked at
HOGS = 6

Act = Callable[[Client], object]


def steady(client: Client) -> None:
    """What one caller always asks for."""
    client.sample(DIFFUSION, 2, steps=10)
    time.sleep(0.05)


@dataclass(frozen=True)
class Server:
    """The server under a story, and who watches it."""

    target: str
    prometheus: Prometheus

    def after(self, act: Act | None = None, callers: int = 1) -> dict[str, float]:
        """Panels of the overview at the end of a story: the mean over each panel's first query, by legend."""
        with calling(self.target, steady, 1), calling(self.target, act or steady, callers if act else 0):
            time.sleep(STORY_S)
            return {
                title: sum(self.prometheus.instant(expr).values()) for title, expr in overview().items()
            } | self.phases()

    def phases(self) -> dict[str, float]:
        """Mean seconds by phase."""
        import json

        values = self.prometheus.instant(overview()["Mean latency by phase"])
        return {json.loads(labels)["phase"]: seconds for labels, seconds in values.items()}


def overview() -> dict[str, str]:
    """First query of each panel, by title."""
    return {
        panel["title"]: panel["targets"][0]["expr"]
        for dashboard, panel in panels()
        if dashboard["uid"] == "pxserve-overview"
    }


@contextmanager
def calling(target: str, act: Act, callers: int) -> Iterator[None]:
    """Callers that ask again and again while the block runs."""
    ended = threading.Event()

    def repeat() -> None:
        with Client(target, timeout_s=60) as client:
            while not ended.is_set():
                with suppress(PxserveError):
                    act(client)

    threads = [threading.Thread(target=repeat) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join(70)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    binary("prometheus")
    folder = tmp_path_factory.mktemp("causes")
    (folder / "models").mkdir()
    (folder / "models" / DIFFUSION).symlink_to(ROOT / "models" / DIFFUSION)
    flags = ("--engine", "process", "--threads", "1")
    with (
        serving(folder / "models", log=folder / "log", flags=flags) as running_server,
        running(folder, {"pxserve": running_server.metrics}) as prometheus,
    ):
        yield Server(running_server.target, prometheus)


@pytest.fixture(scope="module")
def well(server: Server) -> dict[str, float]:
    return server.after()


def test_too_many_callers_show_as_queueing_and_backlog(server: Server, well: dict[str, float]) -> None:
    ill = server.after(lambda client: client.sample(DIFFUSION, 32, steps=20), callers=16)
    assert ill["queue"] > 5 * well["queue"]
    assert ill["Backlog by replica"] > 5 * well["Backlog by replica"]
    assert ill["Batch: rows of a run, of its capacity"] > 0.6
    assert ill["Device busy"] > 0.8 > well["Device busy"]


def test_two_large_callers_show_as_full_runs_before_anything_queues(
    server: Server, well: dict[str, float]
) -> None:
    ill = server.after(lambda client: client.sample(DIFFUSION, 64, steps=20), callers=2)
    assert ill["run"] > 3 * well["run"]
    assert ill["run"] > 2 * ill["queue"]
    assert ill["Batch: rows of a run, of its capacity"] > 0.6 > well["Batch: rows of a run, of its capacity"]
    assert ill["Step time"] > 2 * well["Step time"]
    assert ill["Device busy"] > 0.8 > well["Device busy"]


def test_larger_requests_show_as_work_per_row(server: Server, well: dict[str, float]) -> None:
    ill = server.after(lambda client: client.sample(DIFFUSION, 2, steps=100, label=1, guidance_scale=3.0))
    assert ill["Work per answered row"] > 2 * well["Work per answered row"]
    assert ill["run"] > 2 * ill["queue"]


def test_callers_that_leave_show_as_wasted_work(server: Server, well: dict[str, float]) -> None:
    def leave(client: Client) -> None:
        events = client.stream_sample(DIFFUSION, 16, preview_every_steps=5, steps=50)
        next(event for event in events if type(event).__name__ == "Preview")
        events.close()

    ill = server.after(leave)
    assert ill["Wasted work"] > 0.3
    assert well["Wasted work"] < 0.05


def test_neighbours_on_the_cores_show_as_waiting_for_a_core(server: Server, well: dict[str, float]) -> None:
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(HOGS)]
    try:
        ill = server.after()
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert ill["Waiting for a core"] > 3 * well["Waiting for a core"]
    assert ill["Step time"] > 1.3 * well["Step time"]
    assert ill["Work per answered row"] < 1.5 * well["Work per answered row"]
