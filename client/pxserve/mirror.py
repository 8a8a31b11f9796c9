"""Messages as the frozen dataclasses that users see: same field names, plain Python values."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
from collections.abc import Callable, Mapping
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
    readers = _readers(cast(Any, kind), message.DESCRIPTOR)
    return kind(**{name: read(message) for name, read in readers.items()})


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
def _readers(kind: Any, descriptor: Any) -> dict[str, Callable[[Any], Any]]:
    """One function per field, so that types are looked at once and not per message."""
    hints = get_type_hints(kind)
    fields = (field.name for field in dataclasses.fields(kind))
    return {name: _reader(hints[name], name, descriptor.fields_by_name[name]) for name in fields}


def _reader(hint: Any, name: str, field: Any) -> Callable[[Any], Any]:
    origin = get_origin(hint)
    if origin is Mapping:
        return lambda message: dict(getattr(message, name))
    if origin is tuple:
        each = _converter(get_args(hint)[0], field)
        return lambda message: tuple(each(item) for item in getattr(message, name))
    if origin is types.UnionType:
        some = _converter(get_args(hint)[0], field)
        return lambda message: some(getattr(message, name)) if message.HasField(name) else None
    convert = _converter(hint, field)
    return lambda message: convert(getattr(message, name))


def _converter(hint: Any, field: Any) -> Callable[[Any], Any]:
    if dataclasses.is_dataclass(hint):
        return functools.partial(mirror, cast(type[Any], hint))
    if issubclass(hint, enum.StrEnum):
        return functools.partial(member, hint, field.enum_type)
    if field.enum_type is not None:
        return lambda number: DTYPES[number].name if number in DTYPES else ""
    return lambda value: value


def _plain(field: Any, value: Any) -> Value:
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return float(str(np.float32(value)))  # the shortest decimal that is this float32
    if field.enum_type is not None:
        prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        return str(field.enum_type.values_by_number[value].name).removeprefix(prefix).lower()
    return value if isinstance(value, bool | int | float | str) else tuple(value)
