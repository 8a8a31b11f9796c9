"""Parameters: fields that are set become named values, and values become fields or text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from serving.errors import invalid
from serving.families.request import Value

Enum = Any  # EnumDescriptor; the stubs of protobuf know it under two names


def values_of(message: Message, field: str) -> dict[str, Value]:
    """What is set in a message of parameters, by name; messages inside it are left out."""
    return {
        descriptor.name: _value(descriptor, content, f"{field}.{descriptor.name}")
        for descriptor, content in message.ListFields()
        if descriptor.message_type is None
    }


def _value(descriptor: FieldDescriptor, content: object, field: str) -> Value:
    if descriptor.enum_type is not None:
        assert isinstance(content, int)
        return enum_word(descriptor.enum_type, content, field)
    if descriptor.type == FieldDescriptor.TYPE_FLOAT and isinstance(content, float):
        return float(str(np.float32(content)))  # 0.7f is 0.7 to whoever wrote it, not 0.699999988
    if isinstance(content, bool | int | float | str):
        return content
    return tuple(str(entry) for entry in cast("Sequence[str]", content))


def fill(message: Message, values: Mapping[str, Value]) -> None:
    """Set the fields that have a value; values without a field are told in the provenance only."""
    for descriptor in message.DESCRIPTOR.fields:
        value = values.get(descriptor.name)
        if value is None or descriptor.message_type is not None:
            continue
        if descriptor.enum_type is not None:
            setattr(message, descriptor.name, enum_number(descriptor.enum_type, str(value)))
        elif isinstance(value, tuple):
            getattr(message, descriptor.name).extend(value)
        else:
            setattr(message, descriptor.name, value)


def text_of(value: Value) -> str:
    """A value as text: numbers in their shortest exact form, booleans as true or false, lists as JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(list(value), ensure_ascii=False) if isinstance(value, tuple) else str(value)


def enum_word(enum: Enum, number: int, field: str) -> str:
    """``DEQUANTIZATION_UNIFORM`` is "uniform"."""
    entry = enum.values_by_number.get(number)
    if entry is None:
        raise invalid(field, f"{number} is no value of {enum.name}")
    return str(entry.name).removeprefix(_prefix(enum)).lower()


def enum_number(enum: Enum, word: str) -> int:
    """The number of "uniform"; 0 (unspecified) for a word that the contract does not have."""
    entry = enum.values_by_name.get(f"{_prefix(enum)}{word.upper()}")
    return entry.number if entry is not None else 0


def _prefix(enum: Enum) -> str:
    return str(enum.values_by_number[0].name).removesuffix("UNSPECIFIED")
