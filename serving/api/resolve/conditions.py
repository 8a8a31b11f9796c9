"""Conditions of a request: every condition of the package gets a value per row, or the request is refused."""

from __future__ import annotations

import numpy as np

from export.package.schema import Condition, ModelSpec
from serving.api.resolve.asked import Given
from serving.errors import invalid
from serving.families.request import Array


def conditions_of(given: tuple[Given, ...], spec: ModelSpec, rows: int) -> dict[str, Array]:
    """Class ids int64 [rows] and vectors float32 [rows, *shape] by name; null values where absent."""
    known = {condition.name: condition for condition in spec.conditions}
    chosen: dict[str, Array] = {}
    for index, one in enumerate(given):
        field = f"conditions[{index}]"
        if one.name not in known:
            raise invalid(f"{field}.name", f"{one.name!r} is no condition of this model; {_listed(spec)}")
        if one.name in chosen:
            raise invalid(f"{field}.name", f"{one.name!r} is given twice")
        chosen[one.name] = _value(known[one.name], one.value, rows, field)
    for name, condition in known.items():
        if name not in chosen:
            chosen[name] = _absent(condition, rows)
    return {name: chosen[name] for name in known}


def _value(condition: Condition, value: Array | None, rows: int, field: str) -> Array:
    if value is None:
        if condition.when_absent != "null":
            raise invalid(f"{field}.use_null", f"{condition.name!r} has no null value")
        return _absent(condition, rows)
    wanted = condition.shape if condition.kind == "vector" else ()
    kind = "tensor" if condition.kind == "vector" else "labels"
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
    if condition.kind == "class":
        return np.full(rows, condition.null_value, np.int64)
    return np.zeros((rows, *condition.shape), np.float32)


def _listed(spec: ModelSpec) -> str:
    names = ", ".join(condition.name for condition in spec.conditions)
    return f"it has {names}" if names else "it has none"
