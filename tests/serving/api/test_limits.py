"""What one client, or all together, may take: calls, streams, metadata, compression, pings, connections."""

from __future__ import annotations

import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from pxserve.v1 import sample_pb2
from tests.serving.api.fake_models import DIGITS, models_in
from tests.serving.api.served import Served, refusal_of
from tests.serving.api.test_streams import wait_for

SAMPLE = sample_pb2.SampleRequest(model=DIGITS)
PATH = "/pxserve.v1.GenerativeService/Sample"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY, ENHANCE_YOUR_CALM = 4, 6, 7, 11


def test_calls_beyond_the_limit_are_refused_with_a_time_to_come_back(tmp_path: Path) -> None:
    with Served(models_in(tmp_path / "models"), max_open_calls=2) as served:
        served.engine.hangs = True
        running = [served.future("Sample", SAMPLE) for _ in range(2)]
        wait_for(lambda: len(served.engine.tickets) == 2)
        refused = served.refused("Sample", SAMPLE)
        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
        assert refused.retry_s == 1.0
        assert served.call("Check", health_pb2.HealthCheckRequest()).status == 1  # probes go on
        for ticket in served.engine.tickets:
            ticket.finish()
        for call in running:
            assert call.result(5.0)
        served.engine.hangs = False
        served.call("Sample", SAMPLE)


def test_a_connection_has_no_more_streams_than_the_limit(tmp_path: Path) -> None:
    with Served(models_in(tmp_path / "models"), max_streams_per_connection=2) as served:
        served.engine.hangs = True
        running = [served.future("Sample", SAMPLE) for _ in range(3)]
        wait_for(lambda: len(served.engine.tickets) == 2)
        time.sleep(0.2)
        assert len(served.engine.tickets) == 2  # the third waits with the client
        served.engine.tickets[0].finish()
        wait_for(lambda: len(served.engine.tickets) == 3)
        for ticket in served.engine.tickets:
            ticket.finish()
        assert all(call.result(5.0) for call in running)


def test_metadata_over_the_limit_is_refused_every_time(tmp_path: Path) -> None:
    with Served(models_in(tmp_path / "models"), max_metadata_bytes=2048) as served:
        served.call("Sample", SAMPLE, (("x-note", "a" * 1000),))
        for _ in range(5):
            refused = served.refused("Sample", SAMPLE, (("x-note", "a" * 3000),))
            assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        served.call("Sample", SAMPLE)


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_refused_before_they_are_unpacked(
    served: Served, algorithm: grpc.Compression
) -> None:
    """gRPC looks at the size only afterwards: 300 KB on the wire were seen to take 300 MB."""
    call: Any = served.channel.unary_unary(PATH)
    with pytest.raises(grpc.RpcError) as caught:
        call(SAMPLE.SerializeToString() + bytes(1 << 20), compression=algorithm, timeout=5.0)
    assert refusal_of(caught.value).code is grpc.StatusCode.UNIMPLEMENTED
    served.call("Sample", SAMPLE)


def test_compression_can_be_allowed(tmp_path: Path) -> None:
    with Served(models_in(tmp_path / "models"), allow_compression=True) as served:
        call: Any = served.channel.unary_unary(PATH)
        assert call(SAMPLE.SerializeToString(), compression=grpc.Compression.Gzip, timeout=5.0)


def frame(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, 0]) + bytes(4) + payload


def frames(connection: socket.socket) -> Any:
    """(kind, payload) until the server closes the connection."""
    received = b""
    while data := connection.recv(4096):
        received += data
        while len(received) >= 9 and len(received) >= 9 + int.from_bytes(received[:3], "big"):
            size = int.from_bytes(received[:3], "big")
            yield received[3], received[9 : 9 + size]
            received = received[9 + size :]


def test_a_connection_that_only_pings_is_cut_off(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.app.port), timeout=5.0) as connection:
        connection.sendall(PREFACE + frame(SETTINGS) + frame(PING, bytes(8)) * 20)
        goodbyes = [payload for kind, payload in frames(connection) if kind == GOAWAY]
    assert int.from_bytes(goodbyes[-1][4:8], "big") == ENHANCE_YOUR_CALM
    served.call("Sample", SAMPLE)


def test_old_connections_are_replaced_and_no_call_of_theirs_fails(tmp_path: Path) -> None:
    with Served(models_in(tmp_path / "models"), max_connection_age_s=0.3) as served:
        peers: set[str] = set()
        stop, failures = threading.Event(), list[Exception]()

        def traffic() -> None:
            with grpc.insecure_channel(f"127.0.0.1:{served.app.port}") as channel:
                call: Any = channel.unary_unary(PATH)
                while not stop.is_set():
                    try:
                        call(SAMPLE.SerializeToString(), timeout=5.0)
                    except grpc.RpcError as error:
                        failures.append(error)

        threads = [threading.Thread(target=traffic) for _ in range(2)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            peers |= ports_connected_to(served.app.port)
            time.sleep(0.02)
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert len(peers) >= 4  # two threads share one connection at a time


def ports_connected_to(port: int) -> set[str]:
    """Local addresses of the established connections to a port of this machine."""
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    fields = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    return {entry[1] for entry in fields if entry[2].endswith(f":{port:04X}") and entry[3] == "01"}
