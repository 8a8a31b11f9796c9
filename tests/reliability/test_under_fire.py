"""Models are loaded, unloaded and replaced while all are asked: who did not ask for them notices nothing."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.demo.server import Running
from export.package.read import read_package
from export.package.write import write_package
from pxserve import Client, PxserveError
from tests.reliability.observed import assert_empty, assert_no_leak, footprint
from tests.reliability.record import Figure, Record

pytestmark = [pytest.mark.xdist_group("reliability"), pytest.mark.timeout(300)]

STEADY, MOVING = "digits-diffusion", "digits-gan"
EXPECTED = {"NOT_READY", "UNLOADING"}  # of the model that is being moved
MEMORY_MIB = 150.0
SHORT, LONG = 3, 60  # rounds of unload, load, publish, load


class Fire:
    """Callers that ask without pause; what they were told, and whether any answer was wrong."""

    def __init__(self, target: str) -> None:
        self.told: Counter[tuple[str, str]] = Counter()
        self.wrong: list[str] = []
        self.latency_s: list[float] = []
        self._client = Client(target, timeout_s=20.0)
        self._truth = {name: self._ask(name, 0) for name in (STEADY, MOVING)}
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(name, k)) for name in self._truth for k in (0, 1)
        ]

    def __enter__(self) -> Fire:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def _ask(self, name: str, seed: int) -> np.ndarray[Any, Any]:
        steps = 10 if name == STEADY else None
        found: np.ndarray[Any, Any] = self._client.sample(name, 2, seed=seed, steps=steps).data
        return found

    def _run(self, name: str, seed: int) -> None:
        while not self._done.is_set():
            begun = time.monotonic()
            try:
                answer = self._ask(name, 0)
            except PxserveError as error:
                self.told[name, error.reason] += 1
                continue
            self.told[name, "OK"] += 1
            if name == STEADY:
                self.latency_s.append(time.monotonic() - begun)
            if not np.array_equal(answer, self._truth[name]):
                self.wrong.append(name)


def moved(repository: Path, target: str, rounds: int) -> None:
    """Unload, load, publish the next version, load it, unload the old one: that often."""
    package = read_package(repository / MOVING / "1")
    files: dict[str, Path | bytes] = {name: package.path(name) for name in package.spec.files}
    with Client(target, timeout_s=60.0) as operator:
        for _ in range(rounds):
            operator.unload_model(MOVING)
            assert operator.load_model(MOVING, wait=True).state == "ready"
            latest = max(int(path.name) for path in (repository / MOVING).glob("[0-9]*"))
            write_package(package.spec, files, repository, latest + 1)
            assert operator.load_model(MOVING, wait=True).version == latest + 1
            operator.unload_model(MOVING, version=latest)
            if latest > 1:
                shutil.rmtree(repository / MOVING / str(latest))


def under_fire(repository: Path, server: Running, rounds: int) -> Fire:
    with Fire(server.target) as fire:
        moved(repository, server.target, rounds)
    assert not fire.wrong
    assert {reason for name, reason in fire.told if name == STEADY} == {"OK"}
    assert {reason for name, reason in fire.told if name == MOVING} <= {"OK", *EXPECTED}
    assert_empty(server)
    return fire


def test_models_move_under_fire(repository: Path, server: Running) -> None:
    fire = under_fire(repository, server, SHORT)
    assert fire.told[MOVING, "OK"] > 0


@pytest.mark.reliability
@pytest.mark.timeout(1800)
def test_models_move_under_fire_for_long(repository: Path, server: Running, record: Record) -> None:
    under_fire(repository, server, 3)
    before = footprint(server)
    fire = under_fire(repository, server, LONG)
    assert_no_leak(server, before, MEMORY_MIB)
    after = footprint(server)
    refused = {
        model: sum(count for (name, reason), count in fire.told.items() if name == model and reason != "OK")
        for model in (STEADY, MOVING)
    }
    record(
        "Load and unload under fire",
        [
            Figure("rounds of unload, load, publish, load the next version, unload the old one", LONG),
            Figure("answers of the model beside it", fire.told[STEADY, "OK"]),
            Figure("its refusals", refused[STEADY], "", 0, "at most"),
            Figure("its p99 latency", float(np.percentile(fire.latency_s, 99)) * 1e3, "ms"),
            Figure("answers of the model that moved", fire.told[MOVING, "OK"]),
            Figure("its refusals, all of them NOT_READY or UNLOADING", refused[MOVING]),
            Figure("answers with other bytes", len(fire.wrong), "", 0, "at most"),
            Figure(
                "memory afterwards minus before",
                after.memory_mib - before.memory_mib,
                "MiB",
                MEMORY_MIB,
                "at most",
            ),
            Figure("open files afterwards minus before", after.files - before.files, "", 2, "at most"),
        ],
        f"{STEADY} and {MOVING} are asked by two callers each without pause.",
    )
