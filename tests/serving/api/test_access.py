"""Who may ask what: tokens over gRPC, their scopes, priorities and names; the address of administrators."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import generate_latest

from pxserve.v1 import model_service_pb2, sample_pb2
from serving.access.new_token import Wanted, new_token
from serving.config import ConfigError
from serving.engine.messages import Quota
from tests.serving.api.fake_models import DIGITS, models_in
from tests.serving.api.served import Metadata, Served, refusal_of
from tests.serving.api.test_streams import wait_for

pb = model_service_pb2
SAMPLE = sample_pb2.SampleRequest(model=DIGITS)
UNKNOWN = (("authorization", "Bearer pxs_of_nobody"),)
ADMINISTRATION = {
    "LoadModel": pb.LoadModelRequest(model=DIGITS),
    "UnloadModel": pb.UnloadModelRequest(model="nobody"),
    "SelfTest": pb.SelfTestRequest(model=DIGITS, checks=["no such check"]),
}


@dataclass
class Guarded:
    served: Served
    file: Path
    reader: str
    boss: str
    keeper: str

    def bearer(self, name: str) -> Metadata:
        return (("authorization", f"Bearer {getattr(self, name)}"),)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    reader, first = new_token(Wanted("reader", ["infer"], 60.0, 3600.0, 2.0, 5))
    boss, second = new_token(Wanted("boss", ["infer", "admin"]))
    keeper, third = new_token(Wanted("keeper", ["admin"]))
    file = tmp_path / "tokens.toml"
    file.write_text(first + second + third)
    with Served(models_in(tmp_path / "models"), tokens=str(file)) as served:
        yield Guarded(served, file, reader, boss, keeper)


def services(channel: grpc.Channel, metadata: Metadata = ()) -> set[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    [answer] = stub.ServerReflectionInfo(iter([asked]), metadata=metadata)
    return {service.name for service in answer.list_services_response.service}


def test_missing_and_unknown_tokens_are_unauthenticated(guarded: Guarded) -> None:
    for metadata in ((), UNKNOWN, (("authorization", guarded.reader),)):
        for method, request in {
            "Sample": SAMPLE,
            "ListModels": pb.ListModelsRequest(),
            **ADMINISTRATION,
        }.items():
            refused = guarded.served.refused(method, request, metadata)
            assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
            assert refused.trailers["x-request-id"]
    streaming = guarded.served.stream("StreamSample", sample_pb2.StreamSampleRequest(request=SAMPLE))
    with pytest.raises(grpc.RpcError) as caught:
        next(streaming)
    assert refusal_of(caught.value).code is grpc.StatusCode.UNAUTHENTICATED
    assert not guarded.served.engine.requests


def test_a_token_without_the_scope_is_denied_and_told_which_one_it_lacks(guarded: Guarded) -> None:
    for method, request in ADMINISTRATION.items():
        refused = guarded.served.refused(method, request, guarded.bearer("reader"))
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        assert refused.metadata["scope"] == "admin"
    refused = guarded.served.refused("Sample", SAMPLE, guarded.bearer("keeper"))
    assert (refused.code, refused.metadata["scope"]) == (grpc.StatusCode.PERMISSION_DENIED, "infer")


def test_each_scope_opens_what_is_its_own(guarded: Guarded) -> None:
    served = guarded.served
    served.call("Sample", SAMPLE, guarded.bearer("reader"))
    for name in ("reader", "boss", "keeper"):
        assert served.call("ListModels", pb.ListModelsRequest(), guarded.bearer(name)).models
    for name in ("boss", "keeper"):
        served.call("LoadModel", ADMINISTRATION["LoadModel"], guarded.bearer(name))
        refused = served.refused("SelfTest", ADMINISTRATION["SelfTest"], guarded.bearer(name))
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT  # it was let in, and looked at


def test_health_is_open_and_reflection_is_not(guarded: Guarded) -> None:
    served = guarded.served
    assert served.call("Check", health_pb2.HealthCheckRequest()).status == 1
    assert next(served.stream("Watch", health_pb2.HealthCheckRequest())).status == 1
    with pytest.raises(grpc.RpcError) as caught:
        services(served.channel)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "pxserve.v1.GenerativeService" in services(served.channel, guarded.bearer("reader"))


def test_the_message_of_a_stranger_is_not_read(guarded: Guarded) -> None:
    """Else it would be refused for what it is: too large, or no message at all."""
    path = "/pxserve.v1.GenerativeService/Sample"
    for payload in (bytes(65 << 20), b"\xff\xff"):
        with pytest.raises(grpc.RpcError) as caught:
            guarded.served.raw(path, payload, UNKNOWN)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_request_runs_in_the_share_of_its_token_with_its_weight_quota_and_priority(
    guarded: Guarded,
) -> None:
    metadata = (*guarded.bearer("reader"), ("x-priority", "5"))
    guarded.served.call("Sample", SAMPLE, metadata)
    list(
        guarded.served.stream(
            "StreamSample", sample_pb2.StreamSampleRequest(request=SAMPLE), guarded.bearer("reader")
        )
    )
    (_, _, unary), (_, _, streamed) = guarded.served.engine.requests
    assert (unary.share, unary.share_weight, unary.priority) == ("reader", 2.0, 5)
    assert unary.quota == Quota(60.0, 3600.0)
    assert (streamed.share, streamed.priority, streamed.quota) == ("reader", 0, Quota(60.0, 3600.0))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("6", grpc.StatusCode.PERMISSION_DENIED),
        ("101", grpc.StatusCode.INVALID_ARGUMENT),
        ("high", grpc.StatusCode.INVALID_ARGUMENT),
        ("", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_a_priority_that_a_token_may_not_ask_is_refused(
    guarded: Guarded, value: str, code: grpc.StatusCode
) -> None:
    refused = guarded.served.refused("Sample", SAMPLE, (*guarded.bearer("reader"), ("x-priority", value)))
    assert refused.code is code


def test_without_tokens_everyone_may_ask_and_choose_a_priority(served: Served) -> None:
    served.call("Sample", SAMPLE, (("x-priority", "-7"), *UNKNOWN))
    options = served.engine.requests[-1][2]
    assert (options.share, options.share_weight, options.priority, options.quota) == ("", 1.0, -7, None)


def test_tokens_are_revoked_and_added_without_a_restart(guarded: Guarded) -> None:
    served, fresh = guarded.served, new_token(Wanted("fresh", ["infer"]))
    guarded.file.write_text(fresh[1])
    presented = (("authorization", f"Bearer {fresh[0]}"),)
    wait_for(lambda: answers(served, presented))
    assert served.refused("Sample", SAMPLE, guarded.bearer("boss")).code is grpc.StatusCode.UNAUTHENTICATED


def answers(served: Served, metadata: Metadata) -> bool:
    try:
        served.call("Sample", SAMPLE, metadata)
    except grpc.RpcError:
        return False
    return True


def test_a_broken_file_of_tokens_leaves_the_old_ones_in_force(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    guarded.file.write_text("[[token]]\nname = 3\n")
    wait_for(lambda: "kept the old tokens" in caplog.text)
    assert answers(guarded.served, guarded.bearer("reader"))


def test_a_broken_file_of_tokens_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "tokens.toml").write_text("[[token]]\nname = 3\n")
    served = Served(models_in(tmp_path / "models"), tokens=str(tmp_path / "tokens.toml"))
    with pytest.raises(ConfigError, match=r"tokens\.toml: token 1: name"):
        served.begin_only()
    served.abandon()


def test_only_the_name_of_a_token_is_logged(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        guarded.served.call("Sample", SAMPLE, guarded.bearer("reader"))
        guarded.served.refused("LoadModel", ADMINISTRATION["LoadModel"], guarded.bearer("reader"))
        guarded.served.refused("Sample", SAMPLE, UNKNOWN)
    assert [getattr(record, "token", "") for record in caplog.records if record.message == "call"] == [
        "reader",
        "",
        "",
    ]
    written = "".join(str(vars(record)) for record in caplog.records)
    written += generate_latest(guarded.served.metrics.registry).decode()
    for secret in (guarded.reader, "pxs_of_nobody", guarded.file.read_text().split('sha256 = "')[1][:64]):
        assert secret not in written


def test_administration_has_an_address_of_its_own_where_it_is_given_one(tmp_path: Path) -> None:
    with Served(models_in(tmp_path / "models"), admin_listen="127.0.0.1:0") as served:
        for method, request in ADMINISTRATION.items():
            refused = served.refused(method, request)
            assert (refused.code, refused.reason) == (grpc.StatusCode.UNIMPLEMENTED, "ADMIN_ELSEWHERE")
        served.call("Sample", SAMPLE)
        asked = served.channel
        served.channel = grpc.insecure_channel(f"127.0.0.1:{served.app.admin_port}")
        served.call("UnloadModel", pb.UnloadModelRequest(model=DIGITS))
        assert served.call("LoadModel", pb.LoadModelRequest(model=DIGITS, wait=True)).model.state == 3
        assert served.call("ListModels", pb.ListModelsRequest()).models
        assert served.call("Check", health_pb2.HealthCheckRequest()).status == 1
        assert "pxserve.v1.GenerativeService" not in services(served.channel)
        refused = served.refused("Sample", SAMPLE)
        assert refused.code is grpc.StatusCode.UNIMPLEMENTED
        asked.close()


def test_whoever_listens_beyond_this_machine_without_tokens_or_certificates_is_warned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"listen": "0.0.0.0:0"}
    with Served(models_in(tmp_path / "models"), **settings):
        assert "no --tokens" in caplog.text
    caplog.clear()
    (tmp_path / "tokens.toml").write_text(new_token(Wanted("a", ["infer"]))[1])
    with Served(models_in(tmp_path / "more"), **settings, tokens=str(tmp_path / "tokens.toml")):
        assert "no --tls-cert" in caplog.text
        assert "no --tokens" not in caplog.text
