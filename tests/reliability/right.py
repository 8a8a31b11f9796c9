"""Requests that are right for a reference model, and the same with one thing about them changed."""

from __future__ import annotations

import numpy as np
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from pxserve.arrays import to_tensor
from pxserve.v1 import data_pb2
from serving.api.inference import open_inference_pb2
from serving.families.request import Operation
from tests.reliability.messages import Names, messages

IMAGES = ("digits-diffusion", "digits-vae", "digits-gan")
TEXT = "text-autoregressive"
INFER = open_inference_pb2.ModelInferRequest.DESCRIPTOR
_ROWS = data_pb2.Data(tensor=to_tensor(np.arange(128, dtype=np.uint8).reshape(2, 1, 8, 8) % 17))
_TEXTS = data_pb2.Data(texts=data_pb2.Texts(texts=["The import ", "A list"]))
_UPPER = to_tensor(np.broadcast_to(np.arange(8)[:, None] < 4, (8, 8)))
_LATENTS = {
    "digits-diffusion": to_tensor(np.ones((2, 1, 8, 8), np.float32)),
    "digits-vae": to_tensor(np.ones((2, 16), np.float32)),
    "digits-gan": to_tensor(np.ones((2, 32), np.float32)),
}


def right(descriptor: Descriptor, model: str, operation: Operation = Operation.SAMPLE) -> Message:
    """A message that the model can answer, as far as it answers this method at all."""
    if descriptor is INFER:
        return _inference(model, operation)
    message = GetMessageClass(descriptor)()
    names = {field.name for field in descriptor.fields}
    if "request" in names:
        inner = descriptor.fields_by_name["request"].message_type
        assert inner is not None
        message.request.CopyFrom(right(inner, model))  # type: ignore[attr-defined]
        return message
    values: dict[str, Message | str | int] = {
        **dict.fromkeys(("model", "name", "model_name"), model),
        "seed": 1,
        "n": 2,
        "observed": _UPPER,
        **dict.fromkeys(("data", "start", "end"), _TEXTS if model == TEXT else _ROWS),
    }
    if model in _LATENTS:
        values["latents"] = _LATENTS[model]
    for name in names & set(values):
        value = values[name]
        if isinstance(value, Message):
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)
    return message


def _inference(model: str, operation: Operation) -> Message:
    """The same in the words of the Open Inference Protocol."""
    message = open_inference_pb2.ModelInferRequest(model_name=model)
    message.parameters["operation"].string_param = operation.value
    message.parameters["seed"].int64_param = 1
    images = np.arange(128, dtype=np.uint8).reshape(2, 1, 8, 8) % 17
    upper = np.broadcast_to(np.arange(8)[:, None] < 4, (8, 8))
    rows = np.frombuffer(b"The impoA list w", np.uint8).reshape(2, 8) if model == TEXT else images
    shape = {"digits-vae": (16,), "digits-gan": (32,)}.get(model, (1, 8, 8))
    given: dict[Operation, dict[str, np.ndarray]] = {
        Operation.SAMPLE: {},
        Operation.DECODE: {"latents": np.ones((2, *shape), np.float32)},
        Operation.INPAINT: {"data": rows, "observed": upper},
        Operation.INTERPOLATE: {"start": rows, "end": rows[::-1]},
    }
    for name, array in given.get(operation, {"data": rows}).items():
        kind = {"b": "BOOL", "u": "UINT8", "f": "FP32"}[array.dtype.kind]
        message.inputs.add(name=name, datatype=kind, shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    return message


def varied(descriptor: Descriptor, words: Names) -> st.SearchStrategy[Message]:
    """Right messages with up to two fields of a random one merged into them."""
    models, operations = st.sampled_from((*IMAGES, TEXT)), st.sampled_from(list(Operation))
    fields = st.lists(st.sampled_from([field.name for field in descriptor.fields]), max_size=2)
    whole = st.builds(right, st.just(descriptor), models, operations)
    return st.builds(_merged, whole, messages(descriptor, words), fields)


def _merged(message: Message, other: Message, kept: list[str]) -> Message:
    changes = type(message)()
    changes.CopyFrom(other)
    for field, _ in changes.ListFields():
        if field.name not in kept or field.name in ("model", "model_name"):
            changes.ClearField(field.name)
    message.MergeFrom(changes)
    return message
