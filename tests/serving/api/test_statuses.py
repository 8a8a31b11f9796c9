"""Statuses, their details and trailers: what is refused why, and what never reaches a client."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from pxserve.v1 import likelihood_pb2, model_service_pb2, sample_pb2
from serving.api import status
from serving.engine.messages import Failed
from serving.errors import (
    Code,
    DeadlineExceeded,
    FieldViolation,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from tests.serving.api.fake_models import CLOUD, DIGITS
from tests.serving.api.served import Served, refusal_of

SAMPLE = sample_pb2.SampleRequest(model=DIGITS)
PATH = "/pxserve.v1.GenerativeService/"


def test_every_code_has_grpcs_number() -> None:
    assert {code.value for code in Code} <= {code.value[0] for code in grpc.StatusCode}


def test_unknown_model_and_version_are_not_found(served: Served) -> None:
    refused = served.refused("Sample", sample_pb2.SampleRequest(model="nobody"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert served.refused("Sample", sample_pb2.SampleRequest(model=DIGITS, version=9)).code is refused.code
    assert served.refused("GetModel", model_service_pb2.GetModelRequest(model="../x")).code is refused.code


def test_undefined_operation_says_why_and_what_to_use(served: Served) -> None:
    refused = served.refused("Likelihood", likelihood_pb2.LikelihoodRequest(model=CLOUD))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OPERATION_UNDEFINED")
    assert "a GAN has no density; use ScoreAnomaly" in refused.message


def test_bytes_that_do_not_parse_are_invalid_not_unknown(served: Served) -> None:
    for payload in (b"\xff\xff\xff", b"\x0a\x02\xff\xfe"):  # no message at all; a name that is not UTF-8
        with pytest.raises(grpc.RpcError) as caught:
            served.raw(f"{PATH}Sample", payload)
        refused = refusal_of(caught.value)
        assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("request",))


def test_fields_that_the_contract_lacks_are_refused_not_ignored(served: Served) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.raw(f"{PATH}Sample", SAMPLE.SerializeToString() + b"\xf8\x07\x01")  # field 127
    assert refusal_of(caught.value).fields == ("127",)


def test_unknown_method_is_left_to_grpc(served: Served) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.raw(f"{PATH}Dream", b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_message_over_the_limit_is_resource_exhausted(served: Served) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.raw(f"{PATH}Sample", bytes(65 << 20))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    served.call("Sample", SAMPLE)


def test_full_queue_says_when_to_come_back(served: Served) -> None:
    served.engine.refusal = ResourceExhausted("full", retry_after_s=1.5)
    refused = served.refused("Sample", sample_pb2.SampleRequest(model=DIGITS, n=3))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert refused.retry_s == 1.5
    assert refused.trailers["grpc-retry-pushback-ms"] == "1500"


def test_a_full_queue_is_not_asked_again_for_the_same_at_once(served: Served) -> None:
    """Refusals that come as events of the engine's process, too."""
    asked = sample_pb2.SampleRequest(model=DIGITS, n=7)
    served.engine.failure = Failed(ResourceExhausted("full", retry_after_s=1.5))
    served.refused("Sample", asked)
    served.engine.reset()
    refused = served.refused("Sample", asked)
    assert (refused.reason, refused.message) == ("QUEUE_FULL", "full")
    assert refused.retry_s is not None
    assert 1.0 < refused.retry_s < 1.5
    assert not served.engine.requests
    served.call("Sample", sample_pb2.SampleRequest(model=DIGITS, n=5))


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (
            DeadlineExceeded("late", reason="DEADLINE_INFEASIBLE"),
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "DEADLINE_INFEASIBLE",
        ),
        (Unavailable("lost", reason="DEVICE_LOST"), grpc.StatusCode.UNAVAILABLE, "DEVICE_LOST"),
        (Internal("bad"), grpc.StatusCode.INTERNAL, "INTERNAL"),
    ],
)
def test_errors_of_the_engine_keep_code_and_reason(
    served: Served, error: Exception, code: grpc.StatusCode, reason: str
) -> None:
    served.engine.refusal = error
    refused = served.refused("Sample", SAMPLE)
    assert (refused.code, refused.reason) == (code, reason)


def test_failed_rows_are_named(served: Served) -> None:
    served.engine.failure = Failed(Internal("not finite"), np.array([1, 3]))
    refused = served.refused("Sample", sample_pb2.SampleRequest(model=DIGITS, n=4))
    assert refused.metadata["rows"] == "1,3"
    assert refused.metadata["error_id"]


def test_bug_becomes_internal_with_an_id_that_the_log_has(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    served.engine.refusal = ZeroDivisionError("secret detail")
    refused = served.refused("Sample", SAMPLE)
    assert (refused.code, refused.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in refused.message
    logged = [getattr(record, "error_id", "") for record in caplog.records if record.exc_info]
    assert logged == [refused.metadata["error_id"]]


def test_request_id_comes_back_or_is_made(served: Served) -> None:
    assert served.refused("Sample", sample_pb2.SampleRequest()).trailers["x-request-id"]
    refused = served.refused("Sample", sample_pb2.SampleRequest(), (("x-request-id", "abc"),))
    assert refused.trailers["x-request-id"] == "abc"
    too_long = served.refused("Sample", SAMPLE, (("x-request-id", "a" * 129),))
    assert too_long.fields == ("x-request-id",)


def test_details_fit_a_trailer_however_long_the_error() -> None:
    many = [FieldViolation("f" * 9000, "d" * 9000) for _ in range(100)]
    error = InvalidArgument("m" * 9000, violations=many, metadata={"k": "v" * 9000})
    assert len(dict(status.trailers_of(error))[status.DETAILS_KEY]) < 8000


def test_pushback_is_never_negative() -> None:
    trailers = dict(status.trailers_of(ResourceExhausted("full", retry_after_s=-1.0)))
    assert trailers[status.PUSHBACK_KEY] == "0"
