"""A mapping as a ModelSpec, with refusals that name the key and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from export.package import schema
from export.package.errors import PackageError, Reason
from export.package.schema import ModelSpec

_REASONS = {"extra_forbidden": Reason.UNKNOWN_KEY, "missing": Reason.MISSING_KEY}
_FIXES = {
    Reason.UNKNOWN_KEY: "Remove the key{close}",
    Reason.MISSING_KEY: "Add the key",
    Reason.BAD_VALUE: "Correct the value",
}


def parse_spec(where: Path | str, value: Mapping[str, Any]) -> ModelSpec:
    """Validate ``value``; raises PackageError: UNKNOWN_KEY, MISSING_KEY or BAD_VALUE."""
    try:
        return ModelSpec.model_validate(value)
    except ValidationError as error:
        raise _refusal(where, error.errors(include_url=False)) from error


def _refusal(where: Path | str, errors: list[ErrorDetails]) -> PackageError:
    first = errors[0]
    reason = _REASONS.get(first["type"], Reason.BAD_VALUE)
    key = _dotted(first)
    problem = f"{key}: {_sentence(first, reason)}"
    if len(errors) > 1:
        problem += f" (and {len(errors) - 1} more: {', '.join(_dotted(e) for e in errors[1:5])})"
    fix = _FIXES[reason].format(close=_close(str(first["loc"][-1])) if first["loc"] else "")
    return PackageError(reason, where, problem, fix)


def _sentence(error: ErrorDetails, reason: Reason) -> str:
    if reason is Reason.UNKNOWN_KEY:
        return "no such key"
    if reason is Reason.MISSING_KEY:
        return "the key is missing"
    message = error["msg"].removeprefix("Value error, ")
    shown = repr(error["input"])
    return message if error["type"] == "value_error" else f"{message}, not {shown[:80]}"


def _dotted(error: ErrorDetails) -> str:
    return ".".join(str(part) for part in error["loc"]) or "model"


def _close(key: str) -> str:
    """The schema's keys that look like ``key``, as an end to a sentence."""
    known = {
        name
        for record in vars(schema).values()
        if isinstance(record, type) and issubclass(record, BaseModel)
        for name in record.model_fields
    }
    matches = difflib.get_close_matches(key, sorted(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""
