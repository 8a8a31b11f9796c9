"""Calls of the Open Inference Protocol to a served App, and its responses taken apart."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import pytest

from serving.api.convert.infer_tensors import DTYPES, datatype_of
from serving.api.inference import open_inference_pb2 as pb
from tests.serving.api.fake_engine import drawn
from tests.serving.api.fake_models import DIGITS, SPECS
from tests.serving.api.served import Metadata, Refused, Served, refusal_of

SERVICE = "/inference.GRPCInferenceService/"
ROWS = np.stack([drawn(SPECS[DIGITS], 1, row) for row in range(3)])  # [3, 1, 8, 8] uint8
UPPER = np.arange(64).reshape(8, 8) < 32  # [height, width]


def tensor(name: str, value: np.ndarray | Sequence[bytes]) -> tuple[Any, bytes]:
    """An input, and its raw bytes."""
    if isinstance(value, np.ndarray):
        datatype = datatype_of(value.dtype.name)
        one = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=value.shape)
        return one, value.tobytes()
    raw = b"".join(struct.pack("<I", len(each)) + each for each in value)
    return pb.ModelInferRequest.InferInputTensor(name=name, datatype="BYTES", shape=[len(value)]), raw


def request(
    model: str = DIGITS, *inputs: tuple[Any, bytes], outputs: Sequence[str] = (), **parameters: Any
) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model)
    for one, raw in inputs:
        message.inputs.append(one)
        message.raw_input_contents.append(raw)
    for name in outputs:
        message.outputs.add(name=name)
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    for name, value in parameters.items():
        setattr(message.parameters[name], kinds[type(value)], value)
    return message


def infer(served: Served, message: pb.ModelInferRequest, metadata: Metadata = ()) -> pb.ModelInferResponse:
    raw = served.raw(f"{SERVICE}ModelInfer", message.SerializeToString(), metadata)
    return pb.ModelInferResponse.FromString(raw)


def refused(served: Served, message: pb.ModelInferRequest, metadata: Metadata = ()) -> Refused:
    with pytest.raises(grpc.RpcError) as caught:
        infer(served, message, metadata)
    return refusal_of(caught.value)


def outputs(response: pb.ModelInferResponse) -> dict[str, Any]:
    """Arrays and lists of byte strings by name."""
    found: dict[str, Any] = {}
    assert len(response.outputs) == len(response.raw_output_contents)
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.datatype == "BYTES":
            found[output.name] = split(raw)
            assert list(output.shape) == [len(found[output.name])]
        else:
            found[output.name] = np.frombuffer(raw, DTYPES[output.datatype]).reshape(output.shape)
    return found


def split(raw: bytes) -> list[bytes]:
    found = []
    while raw:
        size = struct.unpack_from("<I", raw)[0]
        found.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    return found


def facts(response: pb.ModelInferResponse) -> dict[str, Any]:
    return {
        name: getattr(value, str(value.WhichOneof("parameter_choice")))
        for name, value in response.parameters.items()
    }


def unary(served: Served, method: str, message: Any, metadata: Metadata = ()) -> Any:
    reply = getattr(pb, f"{method}Response")()
    reply.ParseFromString(served.raw(f"{SERVICE}{method}", message.SerializeToString(), metadata))
    return reply
