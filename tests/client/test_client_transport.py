from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import grpc
import numpy as np
import pytest

from pxserve import (
    AsyncClient,
    Client,
    Estimate,
    Preview,
    Progress,
    PxserveError,
    Row,
    SampleKind,
    Summary,
    TextDelta,
)
from pxserve.channel import Endpoint
from pxserve.v1 import sample_pb2
from tests.client.fake_server import Failure, Script, retry_after

ROWS = np.arange(128, dtype=np.uint8).reshape(2, 1, 8, 8) % 17


def test_request_id_token_and_deadline_travel_with_the_call(target: str, script: Script) -> None:
    with Client(target, token="secret", timeout_s=50) as client:
        client.sample("digits", request_id="mine", timeout_s=5)
        client.sample("digits")
    assert script.metadata[0]["x-request-id"] == "mine"
    assert script.metadata[0]["authorization"] == "Bearer secret"
    assert "x-request-id" not in script.metadata[1]
    assert script.deadline_s[0] < 6 < 40 < script.deadline_s[1] < 51
    assert "secret" not in repr(client._endpoint)


def test_a_missed_deadline_raises(client: Client, script: Script) -> None:
    script.hold = threading.Event()
    with pytest.raises(PxserveError) as caught:
        client.sample("digits", timeout_s=0.2)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_lookup_shares_the_deadline_of_its_call(client: Client, script: Script) -> None:
    script.lookup_s = 0.3
    client.sample("digits", label=1, timeout_s=3)
    lookup_s, sample_s = script.deadline_s
    assert sample_s < lookup_s - 0.2


def test_answers_above_grpcs_own_message_limit_arrive(client: Client) -> None:
    rows = np.zeros((40_000, 1, 8, 8), np.uint8)
    found = client.inpaint("digits", rows, rows[0].astype(bool), n=3)
    assert found.data.nbytes == 3 * 40_000 * 64  # above 4 MiB


def test_requests_above_the_models_message_limit_are_refused_before_they_are_sent(
    client: Client, script: Script
) -> None:
    with pytest.raises(PxserveError, match="fewer rows"):
        client.likelihood("digits", np.zeros((80_000, 1, 8, 8), np.uint8))
    assert len(script.requests) == 1


def test_a_stream_is_repeated_when_told_until_something_was_delivered(client: Client, script: Script) -> None:
    failure = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (retry_after(0.01),))
    script.failures.append(failure)
    assert len(list(client.stream_likelihood("digits", ROWS))) == 2
    script.failures.append(failure)
    with pytest.raises(PxserveError, match="full"):
        list(client.stream_sample("digits"))


def test_tls_needs_a_root_that_can_be_read() -> None:
    with pytest.raises(FileNotFoundError):
        Client("127.0.0.1:1", tls="no-such-roots.pem")


def test_a_stream_of_samples_gives_typed_events_and_ends_with_the_summary(client: Client) -> None:
    events = list(client.stream_sample("digits", 2, seed=7, preview_every_steps=1))
    assert events[0] == Progress(1, 2, 0.5, queued=False)
    preview, delta, *rows, summary = events[1:]
    assert isinstance(preview, Preview)
    assert (preview.row, preview.step, preview.data.shape) == (0, 1, (1, 8, 8))
    assert delta == TextDelta(0, "h", (104,))
    assert {row.row: int(row.data[0, 0, 0]) for row in rows if isinstance(row, Row)} == {0: 7, 1: 8}
    assert isinstance(summary, Summary)
    assert summary.result.kind is SampleKind.DISCRETIZED
    assert summary.result.data.size == 0


def test_streams_of_completions_and_likelihoods(client: Client) -> None:
    *rows, summary = client.stream_inpaint("digits", ROWS, np.ones((8, 8), bool), n=3)
    assert [row.row for row in rows if isinstance(row, Row)] == list(range(6))
    assert isinstance(summary, Summary)
    first, last = client.stream_likelihood("digits", ROWS)
    assert isinstance(first, Estimate)
    assert isinstance(last, Summary)
    assert (first.result.log_prob[0], last.result.log_prob[0]) == (-3.0, -2.0)


def test_closing_a_stream_cancels_it(client: Client, script: Script) -> None:
    script.hold = threading.Event()
    events = client.stream_sample("digits", 2)
    next(events)
    assert script.arrived.wait(5)
    events.close()
    assert script.cancelled.wait(5)


def test_a_failing_stream_raises_after_what_was_delivered(client: Client, script: Script) -> None:
    script.failures.append(Failure(grpc.StatusCode.INTERNAL, "boom"))
    events = client.stream_sample("digits", 2)
    assert isinstance(next(events), Progress)
    with pytest.raises(PxserveError, match="boom"):
        next(events)


def with_client(target: str, use: Callable[[AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        async with AsyncClient(target, timeout_s=10) as client:
            await use(client)

    asyncio.run(main())


def test_the_asynchronous_client_answers_the_same(target: str, client: Client) -> None:
    async def use(twin: AsyncClient) -> None:
        many = await asyncio.gather(*(twin.sample("digits", 2, seed=seed, label=3) for seed in range(5)))
        assert [int(samples.data[0, 0, 0, 0]) for samples in many] == list(range(5))
        events = [event async for event in twin.stream_sample("digits", 2, seed=7)]
        assert [type(event) for event in events] == [
            type(event) for event in client.stream_sample("digits", 2, seed=7)
        ]
        assert [model.name for model in await twin.list_models()] == ["digits", "text"]
        with pytest.raises(PxserveError, match="no model"):
            await twin.get_model("nothing")

    with_client(target, use)


def test_cancelling_a_task_cancels_its_call(target: str, script: Script) -> None:
    script.hold = threading.Event()

    async def use(client: AsyncClient) -> None:
        task = asyncio.create_task(client.sample("digits"))
        assert await asyncio.to_thread(script.arrived.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(script.cancelled.wait, 5)

    with_client(target, use)


def test_cancelling_a_task_that_reads_a_stream_cancels_the_stream(target: str, script: Script) -> None:
    script.hold = threading.Event()

    async def read(client: AsyncClient) -> None:
        async for _ in client.stream_sample("digits"):
            pass

    async def use(client: AsyncClient) -> None:
        task = asyncio.create_task(read(client))
        assert await asyncio.to_thread(script.arrived.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(script.cancelled.wait, 5)

    with_client(target, use)


def test_the_asynchronous_client_repeats_as_the_blocking_one_does(target: str, script: Script) -> None:
    script.failures.extend([Failure(grpc.StatusCode.UNAVAILABLE)] * 2)

    async def use(client: AsyncClient) -> None:
        begun = time.monotonic()
        await client.sample("digits")
        assert time.monotonic() - begun < 5
        script.failures.append(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED))
        with pytest.raises(PxserveError):
            await client.sample("digits")

    with_client(target, use)
    assert script.count(sample_pb2.SampleRequest) == 4


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:8500",
        "127.8.8.8:1",
        "localhost:8500",
        "[::1]:8500",
        "unix:/run/pxserve.sock",
        "dns:///localhost:8500",
        "ipv4:127.0.0.1:8500",
        "ipv6:[::1]:8500",
        "localhost",
    ],
)
def test_a_token_may_travel_unencrypted_on_this_machine(target: str) -> None:
    Endpoint(target, token="secret")


@pytest.mark.parametrize(
    "target",
    [
        "10.0.0.7:8500",
        "models.example.org:8500",
        "localhost.example.org:8500",
        "127.0.0.1.example.org:8500",
        "dns:///10.0.0.7:8500",
        "dns://127.0.0.1/models:8500",
        "[2001:db8::1]:8500",
        "xds:///models",
    ],
)
def test_a_token_does_not_leave_this_machine_unencrypted_unless_told_to(target: str) -> None:
    for made in (lambda: Client(target, token="secret"), lambda: AsyncClient(target, token="secret")):
        with pytest.raises(ValueError, match="unencrypted") as caught:
            made()
        assert "secret" not in str(caught.value)
    Endpoint(target)
    Endpoint(target, tls=True, token="secret")
    Endpoint(target, token="secret", allow_plaintext_token=True)


def test_a_priority_travels_with_the_call(target: str, script: Script) -> None:
    with Client(target) as client:
        client.sample("digits", priority=3)
        client.sample("digits")
    assert script.metadata[0]["x-priority"] == "3"
    assert "x-priority" not in script.metadata[1]
