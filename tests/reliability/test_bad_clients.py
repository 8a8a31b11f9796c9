"""Clients that vanish, stall, reset or do not read cost the others nothing, and leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deploy.demo.server import Running, serving
from pxserve import Client
from pxserve.v1 import sample_pb2
from tests.reliability import http2
from tests.reliability.http2 import BadClient
from tests.reliability.observed import (
    assert_empty,
    assert_no_leak,
    await_true,
    footprint,
    held,
    metric,
)
from tests.reliability.record import Figure, Record

pytestmark = [pytest.mark.xdist_group("reliability"), pytest.mark.timeout(300)]

MODEL = "digits-diffusion"
STREAM, UNARY = (f"/pxserve.v1.GenerativeService/{name}" for name in ("StreamSample", "Sample"))
MEMORY_MIB = 120.0
FREED_S = 3.0  # within which the rows of a client that is gone are free
SHORT, LONG = 1, 40  # rounds


def request(n: int = 64, steps: int = 200) -> sample_pb2.SampleRequest:
    parameters = sample_pb2.SampleParameters(steps=steps)
    return sample_pb2.SampleRequest(model=MODEL, n=n, seed=1, parameters=parameters)


def stream_payload(n: int = 64) -> bytes:
    return sample_pb2.StreamSampleRequest(request=request(n), preview_every_steps=1).SerializeToString()


def unary_payload() -> bytes:
    return request().SerializeToString()


def in_flight(server: Running) -> None:
    assert await_true(lambda: held(server) > 0.0, 10.0)


def resets_mid_stream(server: Running) -> None:
    client = BadClient(server.target).ask(STREAM, stream_payload())
    in_flight(server)
    client.read(100)
    client.reset()


def resets_mid_call(server: Running) -> None:
    client = BadClient(server.target).ask(UNARY, unary_payload())
    in_flight(server)
    client.reset()


def closes_mid_stream(server: Running) -> None:
    client = BadClient(server.target).ask(STREAM, stream_payload())
    in_flight(server)
    client.close()


def resets_one_stream_of_a_connection(server: Running) -> None:
    client = BadClient(server.target).ask(STREAM, stream_payload())
    in_flight(server)
    client.send(http2.frame(http2.RST_STREAM, 0, 1, b"\x00\x00\x00\x08"))
    assert_empty(server, FREED_S)
    client.close()


def sends_half_a_message(server: Running) -> None:
    whole = http2.message(unary_payload())
    client = BadClient(server.target)
    client.send(http2.PREFACE, http2.settings(65535), http2.headers(UNARY), whole[: len(whole) // 2])
    time.sleep(0.1)
    client.reset()


def sends_half_a_frame(server: Running) -> None:
    client = BadClient(server.target).send(http2.PREFACE, http2.settings(65535), http2.headers(UNARY)[:7])
    time.sleep(0.1)
    client.close()


def sends_rubbish(server: Running) -> None:
    client = BadClient(server.target).send(np.random.default_rng(1).bytes(4096))
    await_true(lambda: client.read(65536) == b"", 5.0)
    client.close()


def claims_a_message_of_four_gigabytes(server: Running) -> None:
    start = http2.frame(http2.DATA, 0, 1, b"\x00\xff\xff\xff\xff" + bytes(100))
    client = BadClient(server.target)
    client.send(http2.PREFACE, http2.settings(65535), http2.headers(UNARY), start)
    time.sleep(0.1)
    client.close()


def dies(server: Running) -> None:
    code = (
        "import sys; from pxserve import Client\n"
        f"for _ in Client(sys.argv[1]).stream_sample('{MODEL}', 16, steps=200, seed=1): print(flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, server.target], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()


WAYS: tuple[Callable[[Running], None], ...] = (
    resets_mid_stream,
    resets_mid_call,
    closes_mid_stream,
    resets_one_stream_of_a_connection,
    sends_half_a_message,
    sends_half_a_frame,
    sends_rubbish,
    claims_a_message_of_four_gigabytes,
)


def expected(client: Client) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    return client.sample(MODEL, 2, steps=8, seed=9).data


def rounds(server: Running, count: int) -> tuple[list[float], list[float]]:
    """Every way to leave, that often; (seconds until its rows were free, latencies of a good client)."""
    freed_s: list[float] = []
    latency_s: list[float] = []
    with Client(server.target, timeout_s=30.0) as good:
        truth = expected(good)
        for _ in range(count):
            for way in WAYS:
                way(server)
                begun = time.monotonic()
                assert_empty(server, FREED_S)
                freed_s.append(time.monotonic() - begun)
                begun = time.monotonic()
                np.testing.assert_array_equal(expected(good), truth)
                latency_s.append(time.monotonic() - begun)
    return freed_s, latency_s


def test_clients_that_leave_in_any_way_leave_nothing(server: Running) -> None:
    rounds(server, SHORT)
    before = footprint(server)
    rounds(server, SHORT)
    dies(server)
    assert_empty(server, FREED_S)
    assert_no_leak(server, before, MEMORY_MIB)


def test_idle_and_half_open_connections_keep_nobody_waiting(server: Running) -> None:
    before = footprint(server)
    silent = [BadClient(server.target) for _ in range(40)]
    greeted = [BadClient(server.target).send(http2.PREFACE, http2.settings(65535)) for _ in range(40)]
    begun = [
        BadClient(server.target).send(http2.PREFACE, http2.settings(65535), http2.headers(UNARY))
        for _ in range(40)
    ]
    with Client(server.target, timeout_s=10.0) as good:
        expected(good)
    for client in (*silent, *greeted, *begun):
        client.close()
    assert_empty(server)
    assert_no_leak(server, before, MEMORY_MIB)


def slow_readers(server: Running, readers: int, seconds: float) -> tuple[float, float]:
    """Streams whose reader takes nothing, beside a good client; (its p95 latency, memory gained in MiB)."""
    before = footprint(server).memory_mib
    stalled = [BadClient(server.target).ask(STREAM, stream_payload(), window_bytes=0) for _ in range(readers)]
    latencies: list[float] = []
    until = time.monotonic() + seconds
    peak = before
    with Client(server.target, timeout_s=30.0) as good:
        while time.monotonic() < until:
            begun = time.monotonic()
            expected(good)
            latencies.append(time.monotonic() - begun)
            peak = max(peak, footprint(server).memory_mib)
    for client in stalled:
        client.reset()
    return float(np.percentile(latencies, 95)), peak - before


def test_readers_that_do_not_read_grow_nothing(server: Running) -> None:
    before = footprint(server)
    _, gained_mib = slow_readers(server, readers=12, seconds=4.0)
    assert gained_mib < MEMORY_MIB
    assert_empty(server)
    assert_no_leak(server, before, MEMORY_MIB)


@pytest.mark.reliability
def test_a_client_that_fell_silent_is_found_out_long_before_its_deadline(
    models: Path, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / MODEL).symlink_to(models / MODEL)
    with serving(tmp_path / "models", flags=("--keepalive-s", "2")) as running:
        silent = BadClient(running.target).ask(UNARY, request().SerializeToString())
        stalled = BadClient(running.target).ask(STREAM, stream_payload(), window_bytes=0)
        in_flight(running)
        count = metric(running, "pxserve_request_seconds_count", operation="stream_sample")
        ended = await_true(
            lambda: metric(running, "pxserve_request_seconds_count", operation="stream_sample") > count, 10.0
        )
        assert ended, "the stream of a client that answers no ping is still open"
        assert_empty(running)
        for client in (silent, stalled):
            client.close()


@pytest.mark.reliability
@pytest.mark.timeout(1800)
def test_many_bad_clients(server: Running, record: Record) -> None:
    rounds(server, 2)
    before = footprint(server)
    refused = metric(server, "pxserve_request_seconds_count", code="INTERNAL")
    freed_s, latency_s = rounds(server, LONG)
    for _ in range(5):
        dies(server)
    p95_s, gained_mib = slow_readers(server, readers=64, seconds=60.0)
    assert_empty(server)
    assert_no_leak(server, before, MEMORY_MIB)
    after = footprint(server)
    internal = metric(server, "pxserve_request_seconds_count", code="INTERNAL") - refused
    more_mib, more_files = after.memory_mib - before.memory_mib, after.files - before.files
    record(
        "Clients that vanish, stall, reset or do not read",
        [
            Figure("bad clients", len(freed_s) + 5 + 64),
            Figure(
                "until the rows of one that left were free, at most", max(freed_s), "s", FREED_S, "at most"
            ),
            Figure("a good client's calls beside them, each with the same bytes", len(latency_s)),
            Figure("memory gained by 64 streams nobody read, 60 s", gained_mib, "MiB", MEMORY_MIB, "at most"),
            Figure("a good client's p95 latency meanwhile", p95_s * 1e3, "ms"),
            Figure("open files afterwards minus before", more_files, "", 2, "at most"),
            Figure("memory afterwards minus before", more_mib, "MiB", MEMORY_MIB, "at most"),
            Figure("INTERNAL answers", internal, "", 0, "at most"),
        ],
        "HTTP/2 frames by hand: "
        + ", ".join(way.__name__.replace("_", " ") for way in WAYS)
        + "; and clients under kill -9.",
    )
