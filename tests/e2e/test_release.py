"""However a request ends, nothing of it is left, and the next one is answered as if it had never been.

The matrix is that of Triton's L0_grpc_state_cleanup: every verb times every end.
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from deploy.demo.server import Running, serving
from pxserve import AsyncClient, PxserveError
from tests.e2e.conftest import SAMPLING_MODELS, TEXT_MODELS
from tests.e2e.verbs import MANY, UPPER, VERBS, Verb

pytestmark = pytest.mark.xdist_group("e2e")

WAIT_S = 20.0
GONE_S = 1.0  # within which the gauges must be back at zero
SERVICE = "/pxserve.v1.GenerativeService/"
every_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)


def rows_held(server: Running) -> float:
    """Rows that the engine holds, queued or active, as its gauges say."""
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=5) as reply:
        text = reply.read().decode()
    return sum(float(value) for value in re.findall(r"^pxserve_rows_(?:active|queued) (\S+)$", text, re.M))


def wait_for_rows(server: Running, *, held: bool, within_s: float) -> bool:
    until = time.monotonic() + within_s
    while (rows_held(server) > 0) is not held:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


async def in_flight(server: Running) -> None:
    assert await asyncio.to_thread(wait_for_rows, server, held=True, within_s=WAIT_S)


@pytest.fixture(scope="module")
def expected(server: Running) -> dict[str, list[np.ndarray]]:
    """Answers of an undisturbed server."""

    async def ask() -> dict[str, list[np.ndarray]]:
        async with AsyncClient(server.target, timeout_s=WAIT_S) as client:
            return {verb.name: await verb.run(client) for verb in VERBS}

    return asyncio.run(ask())


@pytest.fixture
def released(server: Running, verb: Verb, expected: dict[str, list[np.ndarray]]) -> Iterator[None]:
    """What must hold after every end."""
    yield
    assert wait_for_rows(server, held=False, within_s=GONE_S)

    async def again() -> list[np.ndarray]:
        async with AsyncClient(server.target, timeout_s=WAIT_S) as client:
            return await verb.run(client)

    assert_same(asyncio.run(again()), expected[verb.name])
    assert server.process.poll() is None


def assert_same(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@every_verb
@pytest.mark.usefixtures("released")
def test_completed(verb: Verb) -> None:
    """The next request, asked by the fixture, completes."""


@every_verb
@pytest.mark.usefixtures("released")
def test_cancelled(server: Running, verb: Verb) -> None:
    async def run() -> None:
        async with AsyncClient(server.target) as client:
            task = asyncio.ensure_future(verb.run(client, long=True))
            await in_flight(server)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())


@every_verb
@pytest.mark.usefixtures("released")
def test_deadline_missed(server: Running, verb: Verb) -> None:
    async def run() -> None:
        async with AsyncClient(server.target) as client:
            with pytest.raises(PxserveError) as caught:
                await verb.run(client, long=True, timeout_s=0.15)
            assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED

    asyncio.run(run())


@every_verb
@pytest.mark.usefixtures("released")
def test_connection_closed(server: Running, verb: Verb) -> None:
    async def run() -> None:
        client = AsyncClient(server.target)
        task = asyncio.ensure_future(verb.run(client, long=True))
        await in_flight(server)
        await client.close()
        with suppress(PxserveError, asyncio.CancelledError):
            await task

    asyncio.run(run())


@every_verb
@pytest.mark.usefixtures("released")
def test_wrong_input(server: Running, verb: Verb) -> None:
    with grpc.insecure_channel(server.target) as channel:
        for payload in (verb.wrong.SerializeToString(), b"\xff\xff\xff"):
            call: Any = channel.unary_stream(SERVICE + verb.method)
            with pytest.raises(grpc.RpcError) as caught:
                list(call(payload, timeout=WAIT_S))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


GONE_CLIENT = """
import asyncio, sys
sys.path[:0] = [".", "client"]
from pxserve import AsyncClient
from tests.e2e.verbs import VERBS

async def ask_all():
    async with AsyncClient(sys.argv[1]) as client:
        await asyncio.gather(*(verb.run(client, long=True) for verb in VERBS))

asyncio.run(ask_all())
"""


def test_a_killed_client_with_every_verb_in_flight_leaves_nothing(
    server: Running, expected: dict[str, list[np.ndarray]]
) -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", GONE_CLIENT, server.target], cwd=root) as gone:
        assert wait_for_rows(server, held=True, within_s=WAIT_S)
        time.sleep(0.5)
        assert gone.poll() is None
        gone.kill()
    assert wait_for_rows(server, held=False, within_s=2 * GONE_S)

    async def again() -> None:
        async with AsyncClient(server.target, timeout_s=WAIT_S) as client:
            for verb in VERBS:
                assert_same(await verb.run(client), expected[verb.name])

    asyncio.run(again())


def test_shutdown_ends_every_verb_with_unavailable_and_the_process_with_zero(
    models: Path, tmp_path: Path
) -> None:
    async def ask_all(running: Running) -> list[Any]:
        async with AsyncClient(running.target) as client:
            tasks = [asyncio.ensure_future(verb.run(client, long=True)) for verb in VERBS]
            await in_flight(running)
            await asyncio.sleep(0.5)
            running.process.send_signal(signal.SIGTERM)
            return list(await asyncio.gather(*tasks, return_exceptions=True))

    # On a busy machine all of this together takes longer than the usual deadline, and some would be refused.
    flags = ("--drain-s", "0.3", "--default-deadline-s", "36000")
    with serving(models, log=tmp_path / "server.log", flags=flags) as running:
        begun = time.monotonic()
        ends = asyncio.run(ask_all(running))
        assert running.process.wait(10.0) == 0
        assert time.monotonic() - begun < 10.0
    for verb, end in zip(VERBS, ends, strict=True):
        assert isinstance(end, PxserveError), verb.name
        assert end.code is grpc.StatusCode.UNAVAILABLE, (verb.name, end)


def one_of_each_family(client: AsyncClient) -> dict[str, Any]:
    """A request of every model, so that any of them may be the one that is cancelled."""
    asked: dict[str, Any] = {
        name: client.sample(name, 16, seed=8) for name in SAMPLING_MODELS if name not in TEXT_MODELS
    }
    asked["digits-autoencoder"] = client.inpaint("digits-autoencoder", MANY[:16], UPPER, seed=8)
    asked |= {name: client.sample(name, 4, max_new_tokens=24, seed=8) for name in TEXT_MODELS}
    return asked


def test_cancelling_any_one_of_all_families_leaves_the_others_bitwise_unchanged(server: Running) -> None:
    async def run() -> None:
        async with AsyncClient(server.target, timeout_s=60.0) as client:
            alone = {name: arrays_of(await asked) for name, asked in one_of_each_family(client).items()}
            for victim in alone:
                tasks = {n: asyncio.ensure_future(a) for n, a in one_of_each_family(client).items()}
                await asyncio.sleep(0.05)
                tasks[victim].cancel()
                ends = await asyncio.gather(*tasks.values(), return_exceptions=True)
                for name, end in zip(tasks, ends, strict=True):
                    if name != victim:
                        assert_same(arrays_of(end), alone[name])

    asyncio.run(run())
    assert wait_for_rows(server, held=False, within_s=GONE_S)


def arrays_of(answer: Any) -> list[np.ndarray]:
    if isinstance(answer, BaseException):
        raise answer
    return [np.asarray(answer.data)]
