"""Strategies for messages of any type, made from their descriptors; and bytes that almost are some."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

Names = tuple[str, ...]
DEPTH = 4

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


@cache
def messages(descriptor: Descriptor, names: Names, depth: int = DEPTH) -> st.SearchStrategy[Message]:
    """Messages with any subset of fields; ``names`` are words that mean something to the server."""
    fields = [f for f in descriptor.fields if depth > 0 or f.cpp_type != FieldDescriptor.CPPTYPE_MESSAGE]
    chosen = st.fixed_dictionaries({}, optional={f.name: _values(f, names, depth) for f in fields})
    return chosen.map(lambda values: _built(descriptor, values))


def damaged(payloads: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """The same with a few bytes changed, cut, or doubled."""
    changes = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)
    return st.builds(_damage, payloads, changes, st.integers(0, 8), st.booleans())


def _damage(payload: bytes, changes: list[tuple[int, int]], cut: int, twice: bool) -> bytes:
    content = bytearray(payload * 2 if twice else payload)
    for place, value in changes:
        if content:
            content[place % len(content)] = value
    return bytes(content[: max(0, len(content) - cut)])


def _values(field: FieldDescriptor, names: Names, depth: int) -> st.SearchStrategy[Any]:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = (_scalars(entry.fields_by_name[name], names, depth) for name in ("key", "value"))
        return st.dictionaries(key, value, max_size=3)
    one = _scalars(field, names, depth)
    return st.lists(one, max_size=3) if field.is_repeated else one


def _scalars(field: FieldDescriptor, names: Names, depth: int) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return messages(field.message_type, names, depth - 1)
    if kind in _INTEGERS:
        least, most = _INTEGERS[kind]
        return (
            st.integers(max(least, -3), 70)
            | st.sampled_from((least, most, most - 1, 0))
            | st.integers(least, most)
        )
    if field.enum_type is not None:
        return st.sampled_from([v.number for v in field.enum_type.values]) | st.integers(-(2**31), 2**31 - 1)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=80) | st.sampled_from((bytes(64), bytes(256), b"\x89PNG\r\n\x1a\n"))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return st.sampled_from(names) | st.text(max_size=12) | st.just("x" * 5000)
    floats = st.sampled_from((0.0, 1.0, -1.0, 1e-30, 1e30, float("nan"), float("inf")))
    return floats | st.floats(width=32, min_value=-10.0, max_value=10.0)


def _fill(mapped: Any, values: dict[Any, Any]) -> None:
    """A map's entries."""
    for key, value in values.items():
        if isinstance(value, Message):
            mapped[key].CopyFrom(value)
        else:
            mapped[key] = value


def _built(descriptor: Descriptor, values: dict[str, Any]) -> Message:
    message = GetMessageClass(descriptor)()
    for name, value in values.items():
        field = descriptor.fields_by_name[name]
        if isinstance(value, Message):
            getattr(message, name).CopyFrom(value)
        elif isinstance(value, dict):
            _fill(getattr(message, name), value)
        elif field.is_repeated and field.message_type is not None:
            getattr(message, name).extend(value)
        elif field.is_repeated:
            getattr(message, name)[:] = value
        else:
            setattr(message, name, value)
    return message
