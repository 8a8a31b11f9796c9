"""Conditions of a request: every condition of the package gets a value per row, or the request is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.package.schema import Condition, ModelSpec
from serving.api.resolve.asked import Given
from serving.errors import invalid
from serving.families.absent import absent
from serving.families.request import Array

if TYPE_CHECKING:
    from serving.api.convert.texts import Codec

VALUES = {"class": "labels", "vector": "tensor", "text": "texts"}  # by kind: the field of its value


def conditions_of(
    given: tuple[Given, ...], spec: ModelSpec, rows: int, codec: Codec | None = None
) -> dict[str, Array]:
    """Class ids int64 [rows], vectors float32 [rows, *shape] and token ids int64 [rows, length] by name.

    Null values where absent; ``codec`` reads texts.
    """
    known = {condition.name: condition for condition in spec.conditions}
    chosen: dict[str, Array] = {}
    for index, one in enumerate(given):
        field = f"conditions[{index}]"
        if one.name not in known:
            raise invalid(f"{field}.name", f"{one.name!r} is no condition of this model; {_listed(spec)}")
        if one.name in chosen:
            raise invalid(f"{field}.name", f"{one.name!r} is given twice")
        value = _read(known[one.name], one.value, field, codec)
        chosen[one.name] = _value(known[one.name], value, rows, field)
    for name, condition in known.items():
        if name not in chosen:
            chosen[name] = _absent(condition, rows)
    return {name: chosen[name] for name in known}


def _read(condition: Condition, value: Array | None, field: str, codec: Codec | None) -> Array | None:
    """A value of the condition's kind; texts become token ids."""
    if value is None:
        return None
    is_text = value.dtype.kind in "OU"
    if is_text != (condition.kind == "text"):
        raise invalid(field, f"{condition.name!r} is a {condition.kind}: set {VALUES[condition.kind]}")
    if not is_text:
        return value
    assert codec is not None
    ids = [codec.marked(str(text)) for text in value]
    for index, row in enumerate(ids):
        if len(row) != condition.shape[0]:
            raise invalid(f"{field}.texts[{index}]", f"has {len(row)} tokens; at most {condition.shape[0]}")
    return np.array(ids, np.int64)


def _value(condition: Condition, value: Array | None, rows: int, field: str) -> Array:
    if value is None:
        if condition.when_absent != "null":
            raise invalid(f"{field}.use_null", f"{condition.name!r} has no null value")
        return _absent(condition, rows)
    wanted = {"vector": condition.shape, "text": condition.shape[:1]}.get(condition.kind, ())
    kind = VALUES[condition.kind]
    if value.shape[1:] != wanted or len(value) not in (1, rows):
        raise invalid(
            f"{field}.{kind}",
            f"must be [1 or {rows}{''.join(f', {n}' for n in wanted)}], not {list(value.shape)}",
        )
    if condition.kind == "class":
        wrong = value[np.less(value, 0) | np.greater_equal(value, condition.classes)]
        if len(wrong):
            raise invalid(f"{field}.labels", f"class {int(wrong[0])} is outside 0..{condition.classes - 1}")
    return np.repeat(value, rows, axis=0) if len(value) == 1 else value


def _absent(condition: Condition, rows: int) -> Array:
    if condition.when_absent == "required":
        raise invalid("conditions", f"{condition.name!r} is required")
    return absent(condition, rows)


def _listed(spec: ModelSpec) -> str:
    names = ", ".join(condition.name for condition in spec.conditions)
    return f"it has {names}" if names else "it has none"
