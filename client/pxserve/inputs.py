"""What callers pass, as messages. What the model wants is looked up once (GetModel) and remembered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message
from numpy.typing import ArrayLike

from pxserve.arrays import DTYPES, Array, exactly, to_tensor
from pxserve.errors import refuse
from pxserve.script import GET_MODEL, Delivery, Script, look_up
from pxserve.v1 import data_pb2, model_pb2, model_service_pb2

M = TypeVar("M", bound=Message)
Options = Mapping[str, object]
SMALL_BYTES = 1 << 20  # no server refuses messages as small as this


def delivery(options: Options) -> Delivery:
    """How to send a call with these options."""
    return Delivery(
        cast(float | None, options.get("timeout_s")),
        cast(str | None, options.get("request_id")),
        cast(int | None, options.get("priority")),
    )


def described(model: str, options: Options) -> Script[model_pb2.Model]:
    """The model as GetModel describes it."""
    request = fill(model_service_pb2.GetModelRequest(model=model), options)
    reply = yield from look_up(GET_MODEL, request, delivery(options))
    return reply.model


def fill(message: M, options: Options) -> M:
    """Set the fields of ``message`` that ``options`` names, but for nested messages and None; returns it."""
    for name, value in options.items():
        field = message.DESCRIPTOR.fields_by_name.get(name)
        if field is not None and field.message_type is None and value is not None:
            _set(message, field, value)
    return message


def _set(message: Message, field: Any, value: Any) -> None:
    try:
        if field.enum_type is not None:
            setattr(message, field.name, _number(field.enum_type, field.name, str(value)))
        elif field.name == "stop":
            message.stop.extend([value] if isinstance(value, str) else value)  # type: ignore[attr-defined]
        else:
            setattr(message, field.name, value)
    except ValueError as error:
        refuse(field.name, str(error), error)


def _number(enum: EnumDescriptor, field: str, name: str) -> int:
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    names = {value.name.removeprefix(prefix).lower(): value.number for value in enum.values if value.number}
    if name.lower() not in names:
        refuse(field, f"{name!r} is none of {', '.join(names)}")
    return names[name.lower()]


def within_limits(request: M, model: str, options: Options) -> Script[M]:
    """The request, unless it is larger than the model's messages may be."""
    size = request.ByteSize()
    if size > SMALL_BYTES:
        limit = (yield from described(model, options)).max_message_bytes
        if 0 < limit < size:
            advice = "send fewer rows at a time (first_row keeps their noise the same)"
            refuse("data", f"{size} bytes are more than the {limit} that {model} takes: {advice}")
    return request


def rows(model: str, value: ArrayLike, field: str, options: Options) -> Script[data_pb2.Data]:
    """Rows of the model: arrays that its dtype can hold, lists of different lengths, texts, PNG files.

    An array of the shape of one row is one row. Texts (str) and PNG files (bytes) go one or many.
    """
    texts = _all(value, str)
    if texts is not None:
        return data_pb2.Data(texts=data_pb2.Texts(texts=texts))
    files = _all(value, bytes)
    if files is not None:
        return data_pb2.Data(images=data_pb2.Images(png=files))
    spec = (yield from described(model, options)).data
    array, lengths = _rectangle(value, field)
    if spec.dtype in DTYPES:
        array = exactly(array, DTYPES[spec.dtype].newbyteorder("="), field)
    if _is_one_row(array, spec):
        array = array[np.newaxis]
    return data_pb2.Data(tensor=_tensor(array, field), lengths=lengths)


def _all(value: object, kind: type[Any]) -> list[Any] | None:
    if isinstance(value, kind):
        return [value]
    many = isinstance(value, Sequence) and len(value) > 0 and all(isinstance(item, kind) for item in value)
    return list(cast(Sequence[Any], value)) if many else None


def _rectangle(value: object, field: str) -> tuple[Array, list[int]]:
    """The array, or lists of different lengths padded with zeros, and their lengths (else none)."""
    try:
        return np.asarray(value), []
    except ValueError as error:
        ragged = [np.asarray(item) for item in cast(Sequence[Any], value)]
        if any(item.ndim != 1 for item in ragged):
            refuse(field, "rows differ in shape", error)
    lengths = [len(item) for item in ragged]
    padded = np.zeros((len(ragged), max(lengths)), np.result_type(*ragged))
    for row, item in enumerate(ragged):
        padded[row, : len(item)] = item
    return padded, lengths


def _is_one_row(array: Array, spec: model_pb2.DataSpec) -> bool:
    fits = (want in (-1, have) for want, have in zip(spec.shape, array.shape, strict=False))
    return array.ndim > 0 and array.ndim == len(spec.shape) and all(fits)


def _tensor(array: Array, field: str) -> data_pb2.Tensor:
    if array.dtype.newbyteorder("<") not in DTYPES.values():
        refuse(field, f"{array.dtype} is no data type of the contract")
    return to_tensor(array)


def conditions(model: str, options: Options) -> Script[list[data_pb2.Condition]]:
    """``label`` and ``conditions`` as messages, in the form that the model's condition has."""
    given = dict(cast(Mapping[str, object], options.get("conditions") or {}))
    label = options.get("label")
    if label is None and not given:
        return []
    specs = (yield from described(model, options)).conditions
    if label is not None:
        named = next((spec.name for spec in specs if spec.kind == "class"), "label")
        if named in given:
            refuse("label", f"given twice: as label and as conditions[{named!r}]")
        given[named] = label
    kinds = {spec.name: spec.kind for spec in specs}
    return [_condition(name, value, kinds.get(name, "")) for name, value in given.items()]


def _condition(name: str, value: object, kind: str) -> data_pb2.Condition:
    field = f"conditions[{name}]"
    texts, files = _all(value, str), _all(value, bytes)
    if value is None:
        return data_pb2.Condition(name=name, use_null=True)
    if texts is not None:
        return data_pb2.Condition(name=name, texts=data_pb2.Texts(texts=texts))
    if files is not None:
        return data_pb2.Condition(name=name, images=data_pb2.Images(png=files))
    array = np.asarray(value)
    if kind == "class" or (not kind and array.dtype.kind in "iu" and array.ndim <= 1):
        ids = exactly(np.atleast_1d(array), np.dtype(np.int32), field)
        return data_pb2.Condition(name=name, labels=data_pb2.Labels(ids=ids.tolist()))
    return data_pb2.Condition(name=name, tensor=_tensor(exactly(array, np.dtype(np.float32), field), field))
