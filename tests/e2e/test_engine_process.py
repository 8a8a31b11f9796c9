"""``--engine process``: the same answers, the same ends; and when the engine dies, the server says so."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.demo.server import Running, serving
from pxserve import AsyncClient, Client, PxserveError
from tests.e2e.test_release import in_flight, wait_for_rows
from tests.e2e.verbs import DIFFUSION, ROWS, VERBS

pytestmark = pytest.mark.xdist_group("e2e")


@pytest.fixture(scope="module")
def few_models(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the models, so that the servers of this file start fast."""
    folder = tmp_path_factory.mktemp("models")
    for name in (DIFFUSION, "digits-vae"):
        (folder / name).symlink_to(models / name)
    return folder


@pytest.fixture
def remote(few_models: Path, tmp_path: Path) -> Iterator[Running]:
    # On a busy machine long requests together are predicted to take longer than the usual deadline, and one
    # that is refused for that comes again when told: minutes later.
    flags = ("--engine", "process", "--drain-s", "10", "--default-deadline-s", "36000")
    with serving(few_models, log=tmp_path / "server.log", flags=flags) as running:
        yield running


def engine_of(running: Running) -> int:
    """Process id of the server's child that runs the engine."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(running.process.pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split(maxsplit=1) for line in listed.stdout.splitlines()]
    return next(int(pid) for pid, args in lines if "spawn_main" in args)


def test_answers_cancels_and_drains_as_with_a_thread(client: Client, remote: Running) -> None:
    with Client(remote.target, timeout_s=60.0) as far:
        drawn = far.sample(DIFFUSION, 3, steps=10, seed=5)
        np.testing.assert_array_equal(drawn.data, client.sample(DIFFUSION, 3, steps=10, seed=5).data)
        scored = far.likelihood("digits-vae", ROWS[:3], seed=5)
        np.testing.assert_array_equal(
            scored.log_prob, client.likelihood("digits-vae", ROWS[:3], seed=5).log_prob
        )
    asyncio.run(cancelled(remote))
    assert wait_for_rows(remote, held=False, within_s=1.5)
    drained(remote)


async def cancelled(running: Running) -> None:
    async with AsyncClient(running.target) as client:
        task = asyncio.ensure_future(VERBS[0].run(client, long=True))
        await in_flight(running)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def drained(running: Running) -> None:
    """SIGTERM to the whole group lets what runs finish, and ends with status zero."""
    got: list[Any] = []
    with Client(running.target) as client:
        thread = threading.Thread(target=lambda: got.append(client.sample(DIFFUSION, 32, steps=100, seed=1)))
        thread.start()
        assert wait_for_rows(running, held=True, within_s=5.0)
        os.kill(engine_of(running), signal.SIGTERM)
        running.process.send_signal(signal.SIGTERM)
        thread.join(30.0)
    assert len(got) == 1
    assert running.process.wait(15.0) == 0


def test_a_killed_engine_fails_calls_turns_liveness_off_and_ends_the_server(
    remote: Running, tmp_path: Path
) -> None:
    seen: list[int] = []

    async def ask() -> list[Any]:
        async with AsyncClient(remote.target) as client:
            names = ("sample", "encode", "stream-sample", "stream-likelihood")
            verbs = [verb for verb in VERBS if verb.name in names]
            tasks = [asyncio.ensure_future(verb.run(client, long=True)) for verb in verbs]
            await in_flight(remote)
            await asyncio.sleep(2.0)  # streams have told something by now, so that they are not asked again
            os.kill(engine_of(remote), signal.SIGKILL)
            ending = asyncio.ensure_future(asyncio.to_thread(remote.process.wait, 10.0))
            seen.append(await asyncio.to_thread(liveness_after, remote))
            assert await ending == 1
            return list(await asyncio.gather(*tasks, return_exceptions=True))

    ends = asyncio.run(ask())
    told = (tmp_path / "server.log").read_text()
    for end in ends:
        assert isinstance(end, PxserveError), end
        assert end.code is grpc.StatusCode.UNAVAILABLE
    # The client asks unary calls once more, and finds nobody: the server's log has what it was told first.
    assert [end.reason for end in ends[-2:]] == ["DEVICE_LOST"] * 2, told
    assert told.count("reason=DEVICE_LOST") >= len(ends), told
    assert seen == [health_pb2.HealthCheckResponse.NOT_SERVING], told


def liveness_after(running: Running) -> int:
    """What ``liveness`` says once it is not SERVING any more; -1 where the server was gone by then."""
    with grpc.insecure_channel(running.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        try:
            while True:
                status = health.Check(health_pb2.HealthCheckRequest(service="liveness"), timeout=2).status
                if status != health_pb2.HealthCheckResponse.SERVING:
                    return int(status)
        except grpc.RpcError:
            return -1
