"""Whatever bytes come in, no method answers INTERNAL or UNKNOWN, and the server goes on."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pxserve.v1 import generative_service_pb2, model_service_pb2, sample_pb2
from tests.serving.api.fake_models import CLOUD, DIGITS, LETTERS
from tests.serving.api.served import Served, refusal_of

NEVER = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}

METHODS = [
    (service.full_name, method.name, method.input_type)
    for service in (
        generative_service_pb2.DESCRIPTOR.services_by_name["GenerativeService"],
        model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
    )
    for method in service.methods
    if method.name not in ("LoadModel", "UnloadModel")  # they change what the other examples meet
]
MODELS = [name.encode() for name in (DIGITS, LETTERS, CLOUD)]

varints = st.integers(0, 2**64 - 1).map(lambda n: _varint(n))
numbers = st.integers(1, 20)


def _varint(number: int) -> bytes:
    parts = []
    while number >= 128:
        parts.append(number % 128 + 128)
        number //= 128
    return bytes([*parts, number])


def _tagged(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


scalars = st.builds(lambda number, value: _varint(number << 3) + value, numbers, varints)
floats = st.builds(
    lambda number, value: _varint(number << 3 | 5) + value, numbers, st.binary(min_size=4, max_size=4)
)
# protobuf-shaped bytes: fields of small numbers, nested, so that much of it gets past the parser
shaped = st.recursive(
    scalars | floats | st.builds(_tagged, numbers, st.binary(max_size=40)),
    lambda inner: st.builds(_tagged, numbers, st.lists(inner, max_size=4).map(b"".join)),
    max_leaves=10,
)
named = st.builds(
    lambda name, fields: _tagged(1, name) + b"".join(fields),
    st.sampled_from(MODELS),
    st.lists(shaped, max_size=6),
)
payloads = st.binary(max_size=80) | st.lists(shaped, max_size=6).map(b"".join) | named


@pytest.mark.parametrize(("service", "method", "kind"), METHODS, ids=[name for _, name, _ in METHODS])
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(payload=payloads)
def test_no_bytes_are_answered_internal_or_unknown(
    served: Served, service: str, method: str, kind: Any, payload: bytes
) -> None:
    assert code_of(served, f"/{service}/{method}", payload, method.startswith("Stream")) not in NEVER


def code_of(served: Served, path: str, payload: bytes, streams: bool) -> grpc.StatusCode:
    try:
        if streams:
            call: Any = served.channel.unary_stream(path)
            list(call(_tagged(1, payload), timeout=10.0))
        else:
            served.raw(path, payload)
    except grpc.RpcError as error:
        return refusal_of(error).code
    return grpc.StatusCode.OK


def test_server_goes_on_after_all_that(served: Served) -> None:
    served.call("Sample", sample_pb2.SampleRequest(model=DIGITS))
