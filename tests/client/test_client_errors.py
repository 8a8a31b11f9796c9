from __future__ import annotations

import copy
import pickle
import time

import grpc
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped]

from pxserve import Client, FieldViolation, PxserveError
from pxserve.channel import MAX_ATTEMPTS
from pxserve.v1 import sample_pb2
from tests.client.fake_server import Failure, Script, retry_after

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def refused(client: Client, **options: float) -> PxserveError:
    with pytest.raises(PxserveError) as caught:
        client.sample("digits", timeout_s=options.get("timeout_s"))
    return caught.value


def test_status_details_become_attributes(client: Client, script: Script) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation
    violations = [
        violation(field="n", description="at most 64"),
        violation(field="eta", description="unknown"),
    ]
    details = (
        error_details_pb2.ErrorInfo(reason="INVALID_ARGUMENT", metadata={"rows": "3"}),
        error_details_pb2.BadRequest(field_violations=violations),
    )
    script.failures.append(Failure(grpc.StatusCode.INVALID_ARGUMENT, "n: at most 64", details))
    error = refused(client)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (error.reason, error.message) == ("INVALID_ARGUMENT", "n: at most 64")
    assert error.field_violations == (FieldViolation("n", "at most 64"), FieldViolation("eta", "unknown"))
    assert (error.metadata, error.retry_after_s, error.request_id) == ({"rows": "3"}, None, "r1")
    assert str(error) == "INVALID_ARGUMENT: n: at most 64\n  eta: unknown"


def test_an_operation_without_meaning_explains_itself(client: Client, script: Script) -> None:
    info = error_details_pb2.ErrorInfo(reason="OPERATION_UNDEFINED")
    script.failures.append(Failure(grpc.StatusCode.FAILED_PRECONDITION, "a GAN has no density", (info,)))
    assert str(refused(client)) == "FAILED_PRECONDITION (OPERATION_UNDEFINED): a GAN has no density"


def test_errors_without_details_have_their_codes_name_as_reason(client: Client, script: Script) -> None:
    script.failures.append(Failure(grpc.StatusCode.INTERNAL, "boom"))
    assert refused(client).reason == "INTERNAL"


def test_errors_survive_pickling_and_copying(client: Client, script: Script) -> None:
    script.failures.append(Failure(EXHAUSTED, "full", (error_details_pb2.ErrorInfo(reason="QUEUE_FULL"),)))
    error = refused(client)
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert str(other) == str(error)
        assert (other.code, other.reason) == (EXHAUSTED, "QUEUE_FULL")


def test_unavailable_is_repeated_a_bounded_number_of_times(client: Client, script: Script) -> None:
    script.failures.extend([Failure(grpc.StatusCode.UNAVAILABLE)] * 2)
    client.sample("digits")
    assert script.count(sample_pb2.SampleRequest) == 3
    script.failures.extend([Failure(grpc.StatusCode.UNAVAILABLE)] * 9)
    assert refused(client).code is grpc.StatusCode.UNAVAILABLE
    assert script.count(sample_pb2.SampleRequest) == 3 + MAX_ATTEMPTS


def test_exhausted_is_not_repeated_unless_told_when(client: Client, script: Script) -> None:
    script.failures.append(Failure(EXHAUSTED, "quota"))
    assert refused(client).retry_after_s is None
    assert script.count(sample_pb2.SampleRequest) == 1


def test_exhausted_is_repeated_after_the_time_that_the_server_said(client: Client, script: Script) -> None:
    script.failures.append(Failure(EXHAUSTED, "full", (retry_after(0.1),)))
    begun = time.monotonic()
    client.sample("digits")
    assert time.monotonic() - begun >= 0.1
    assert script.count(sample_pb2.SampleRequest) == 2


def test_exhausted_is_repeated_a_bounded_number_of_times(client: Client, script: Script) -> None:
    script.failures.extend([Failure(EXHAUSTED, "full", (retry_after(0.01),))] * 9)
    assert refused(client).retry_after_s == pytest.approx(0.01)
    assert script.count(sample_pb2.SampleRequest) == MAX_ATTEMPTS


def test_exhausted_is_not_repeated_past_the_deadline(client: Client, script: Script) -> None:
    script.failures.append(Failure(EXHAUSTED, "full", (retry_after(0.9),)))
    assert refused(client, timeout_s=0.5).retry_after_s == pytest.approx(0.9)
    assert script.count(sample_pb2.SampleRequest) == 1


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_other_refusals_are_final(client: Client, script: Script, code: grpc.StatusCode) -> None:
    script.failures.append(Failure(code))
    assert refused(client).code is code
    assert script.count(sample_pb2.SampleRequest) == 1


def test_nobody_there_is_unavailable_within_the_deadline() -> None:
    with Client("127.0.0.1:1", timeout_s=2) as client, pytest.raises(PxserveError) as caught:
        client.list_models()
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
