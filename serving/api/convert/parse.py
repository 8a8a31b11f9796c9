"""Bytes to messages; nothing that this server does not know is ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from serving.errors import invalid

MAX_MESSAGES = 64  # in one repeated field of messages, or map (conditions, inputs, parameters)

Parsed = TypeVar("Parsed", bound=Message)


def parsed(payload: bytes, kind: type[Parsed]) -> Parsed:
    """The message; InvalidArgument where the bytes do not parse or hold fields that it does not define."""
    message = kind()
    try:
        message.ParseFromString(payload)
    except (DecodeError, RecursionError) as error:
        raise invalid("request", f"does not parse as {kind.DESCRIPTOR.full_name}: {error}") from error
    refuse_unknown(message, "")
    return message


def refuse_unknown(message: Message, path: str) -> None:
    """InvalidArgument for a field number that the contract of this server does not have."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        raise invalid(
            f"{path}{unknown[0].field_number}",
            f"{message.DESCRIPTOR.full_name} has no field of this number; is the client newer?",
        )
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if isinstance(value, Message):
            refuse_unknown(value, f"{path}{field.name}.")
            continue
        if len(value) > MAX_MESSAGES:
            raise invalid(f"{path}{field.name}", f"{len(value)} entries; at most {MAX_MESSAGES}")
        for place, entry in value.items() if isinstance(value, Mapping) else enumerate(value):
            if isinstance(entry, Message):
                refuse_unknown(entry, f"{path}{field.name}[{place}].")
