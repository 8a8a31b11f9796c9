"""Whatever bytes come in, no method answers INTERNAL or UNKNOWN, and the server goes on."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pxserve.v1 import (
    anomaly_pb2,
    data_pb2,
    generative_service_pb2,
    inpaint_pb2,
    latent_pb2,
    likelihood_pb2,
    model_service_pb2,
    sample_pb2,
)
from serving.api.convert.tensors import tensor_of
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


def _right() -> dict[str, Message]:
    """One right request per method, to be damaged."""
    image = data_pb2.Data(tensor=tensor_of(np.ones((1, 1, 8, 8), np.uint8)))
    text = data_pb2.Data(texts=data_pb2.Texts(texts=["hä"]))
    mask = tensor_of(np.ones((8, 8), np.bool_))
    label = data_pb2.Condition(name="label", labels=data_pb2.Labels(ids=[3]))
    parameters = sample_pb2.SampleParameters(sampler="ddpm", steps=3, guidance_scale=0.5, eta=0.5)
    return {
        "Sample": sample_pb2.SampleRequest(model=DIGITS, n=2, conditions=[label], parameters=parameters),
        "StreamSample": sample_pb2.SampleRequest(
            model=LETTERS, n=2, prompt=text, encoding=data_pb2.ENCODING_TENSOR
        ),
        "Likelihood": likelihood_pb2.LikelihoodRequest(model=LETTERS, data=text),
        "StreamLikelihood": likelihood_pb2.LikelihoodRequest(model=DIGITS, data=image),
        "Inpaint": inpaint_pb2.InpaintRequest(model=DIGITS, data=image, observed=mask, n=2),
        "StreamInpaint": inpaint_pb2.InpaintRequest(model=DIGITS, data=image, observed=mask),
        "ScoreAnomaly": anomaly_pb2.ScoreAnomalyRequest(model=DIGITS, data=image, method="score"),
        "Encode": latent_pb2.EncodeRequest(model=DIGITS, data=image, round_trip=True),
        "Decode": latent_pb2.DecodeRequest(model=DIGITS, latents=tensor_of(np.ones((1, 4), np.float32))),
        "Interpolate": latent_pb2.InterpolateRequest(model=DIGITS, start=image, end=image, points=3),
    }


RIGHT = _right()


@pytest.mark.parametrize("method", RIGHT)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3),
    cut=st.integers(0, 3),
)
def test_no_damaged_request_is_answered_internal_or_unknown(
    served: Served, method: str, changes: list[tuple[int, int]], cut: int
) -> None:
    payload = bytearray(RIGHT[method].SerializeToString())
    for place, value in changes:
        payload[place % len(payload)] = value
    path = f"/pxserve.v1.GenerativeService/{method}"
    whole = bytes(payload[: len(payload) - cut])
    assert code_of(served, path, whole, method.startswith("Stream")) not in NEVER


@pytest.mark.parametrize("method", RIGHT)
def test_undamaged_requests_are_answered(served: Served, method: str) -> None:
    path = f"/pxserve.v1.GenerativeService/{method}"
    payload = RIGHT[method].SerializeToString()
    assert code_of(served, path, payload, method.startswith("Stream")) is grpc.StatusCode.OK


def test_server_goes_on_after_all_that(served: Served) -> None:
    served.call("Sample", sample_pb2.SampleRequest(model=DIGITS))
