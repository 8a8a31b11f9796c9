"""Health from the caller's side, and several servers behind one name."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pxserve import Client, PxserveError
from pxserve.channel import Endpoint
from pxserve.cli import main
from pxserve.health import ServingStatus, check
from tests.client.fake_server import Script, start

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def probed() -> Iterator[str]:
    """A server of the standard health service."""
    servicer = health.HealthServicer()
    servicer.set("", SERVING)
    servicer.set("model/digits", NOT_SERVING)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait(5)


def test_the_status_is_the_one_that_the_standard_service_gives(probed: str) -> None:
    assert check(Endpoint(probed)) is ServingStatus.SERVING
    assert check(Endpoint(probed), "model/digits") is ServingStatus.NOT_SERVING
    with pytest.raises(PxserveError) as caught:
        check(Endpoint(probed), "nobody")
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


def test_the_names_and_numbers_are_those_of_the_standard() -> None:
    standard = dict(health_pb2.HealthCheckResponse.ServingStatus.items())
    assert {status.name: status.value for status in ServingStatus} == standard


def test_the_exit_code_of_the_probe_says_whether_it_serves(
    probed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["health", "--target", probed]) == 0
    assert main(["health", "model/digits", "--target", probed]) == 1
    assert capsys.readouterr().out.split() == ["SERVING", "NOT_SERVING"]
    assert main(["health", "--target", "127.0.0.1:1", "--timeout-s", "2"]) == 1
    assert "UNAVAILABLE" in capsys.readouterr().err


def test_every_server_behind_a_name_gets_work_and_the_others_take_over() -> None:
    scripts = [Script(), Script()]
    servers = [start(script) for script in scripts]
    target = "ipv4:" + ",".join(address for _, address in servers)
    with Client(target, timeout_s=10) as client:
        for _ in range(40):
            client.sample("digits")
            if all(script.requests for script in scripts):  # both are connected
                break
        before = [len(script.requests) for script in scripts]
        for _ in range(10):
            client.sample("digits")
        served = [len(script.requests) - count for script, count in zip(scripts, before, strict=True)]
        assert min(served) >= 4
        servers[0][0].stop(None).wait(5)
        for _ in range(10):
            client.sample("digits")
    servers[1][0].stop(None).wait(5)
