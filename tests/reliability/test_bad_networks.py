"""A network that returns NaN, raises, wants all memory, or hangs harms nobody but who asked for that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from deploy.demo.server import Running, serving
from pxserve import Client, PxserveError
from pxserve.channel import Endpoint
from pxserve.health import ServingStatus, check
from tests.reliability.bad_networks import BAD, GOOD, write_all
from tests.reliability.observed import assert_empty, await_true

pytestmark = [pytest.mark.xdist_group("bad-networks"), pytest.mark.timeout(300)]

NEIGHBOURS = 24
HANG_S = 2.0
ENDS_WITHIN_S = HANG_S + 10.0
ENGINES = [pytest.param("thread", marks=pytest.mark.reliability), "process"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    write_all(folder)
    return folder


def flags(engine: str) -> tuple[str, ...]:
    return ("--allow-torchscript", "--hang-s", str(HANG_S), "--engine", engine, "--threads", "1")


@pytest.fixture(scope="module", params=ENGINES)
def bad(
    request: pytest.FixtureRequest, packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A server of all of them, and its log."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    with serving(packages, log=log, flags=flags(request.param)) as running:
        yield running, log


def latents(rows: int, seed: int) -> np.ndarray[Any, Any]:
    drawn = np.random.default_rng(seed).normal(size=(rows, 2))
    return drawn.clip(-GOOD, GOOD).astype(np.float32)


def with_bad_row(rows: int, at: int) -> np.ndarray[Any, Any]:
    found = latents(rows, 1)
    found[at, 0] = BAD
    return found


@pytest.mark.parametrize("name", ["nan", "raises", "memory", "script-raises"])
def test_a_bad_row_fails_its_request_alone(bad: tuple[Running, Path], name: str) -> None:
    running, log = bad
    with Client(running.target, timeout_s=60.0) as client, ThreadPoolExecutor(NEIGHBOURS + 2) as pool:
        asked = [latents(1 + k % 3, k) for k in range(NEIGHBOURS)]
        answers: list[Future[Any]] = [pool.submit(client.decode, name, rows) for rows in asked]
        guilty = [pool.submit(client.decode, name, with_bad_row(3, at)) for at in (0, 2)]
        for rows, answer in zip(asked, answers, strict=True):
            np.testing.assert_allclose(answer.result().data.astype(np.float64), rows, atol=1e-6)
        errors = [future.exception() for future in guilty]
        np.testing.assert_allclose(client.decode(name, asked[0]).data.astype(np.float64), asked[0], atol=1e-6)
    for error in errors:
        assert isinstance(error, PxserveError), error
        assert error.code is grpc.StatusCode.INTERNAL
        assert error.metadata["error_id"] in log.read_text()
    assert_empty(running)
    assert check(Endpoint(running.target), "liveness") is ServingStatus.SERVING


def test_then_a_hung_network_fails_what_is_in_flight_and_ends_the_process(bad: tuple[Running, Path]) -> None:
    running, log = bad
    with Client(running.target, timeout_s=60.0) as client, ThreadPoolExecutor(8) as pool:
        begun = time.monotonic()
        hung = pool.submit(client.decode, "script-hangs", with_bad_row(1, 0))
        time.sleep(0.3)
        behind = [pool.submit(client.decode, "nan", latents(1, k)) for k in range(4)]
        errors = [future.exception(timeout=30.0) for future in (hung, *behind)]
        took_s = time.monotonic() - begun
    for error in errors:
        assert isinstance(error, PxserveError), error
        assert error.code is grpc.StatusCode.UNAVAILABLE
    assert took_s < ENDS_WITHIN_S
    assert await_true(lambda: running.process.poll() is not None, ENDS_WITHIN_S)
    assert running.process.returncode == 1
    assert "DEVICE_LOST" in log.read_text()
