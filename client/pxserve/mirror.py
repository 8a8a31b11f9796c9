"""Messages as the frozen dataclasses that users see: same field names, plain Python values."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
from collections.abc import Mapping
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from pxserve.arrays import DTYPES
from pxserve.results import Value

T = TypeVar("T")
E = TypeVar("E", bound=enum.StrEnum)


def mirror(kind: type[T], message: Message) -> T:
    """A dataclass from the fields of ``message`` that have its fields' names; absent optionals are None."""
    hints = _hints(cast(Any, kind))
    return kind(**{name: _field(hint, message, name) for name, hint in hints.items()})


def member(kind: type[E], descriptor: EnumDescriptor, number: int) -> E:
    """The member with an enum value's name less its prefix; numbers from newer servers are unspecified."""
    prefix = descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")
    value = descriptor.values_by_number.get(number, descriptor.values_by_number[0])
    return kind(value.name.removeprefix(prefix).lower())


def set_values(message: Message) -> dict[str, Value]:
    """Fields that are set, by name; those of nested messages beside them."""
    values: dict[str, Value] = {}
    for field, value in message.ListFields():
        values.update(set_values(value) if field.message_type else {field.name: _plain(field, value)})
    return values


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _field(hint: Any, message: Any, name: str) -> Any:
    value, origin = getattr(message, name), get_origin(hint)
    descriptor = message.DESCRIPTOR.fields_by_name[name]
    if origin is types.UnionType:
        return _one(get_args(hint)[0], descriptor, value) if message.HasField(name) else None
    if origin is tuple:
        return tuple(_one(get_args(hint)[0], descriptor, item) for item in value)
    if origin is Mapping:
        return dict(value)
    return _one(hint, descriptor, value)


def _one(hint: Any, descriptor: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return mirror(cast(type[Any], hint), value)
    if issubclass(hint, enum.StrEnum):
        return member(hint, descriptor.enum_type, value)
    if descriptor.enum_type is not None:
        return DTYPES[value].name if value in DTYPES else ""
    return value


def _plain(field: Any, value: Any) -> Value:
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return float(str(np.float32(value)))  # the shortest decimal that is this float32
    if field.enum_type is not None:
        prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        return str(field.enum_type.values_by_number[value].name).removeprefix(prefix).lower()
    return value if isinstance(value, bool | int | float | str) else tuple(value)
