"""The choice of a method, and its parameters: known, typed, in range, complete."""

from __future__ import annotations

import math
from collections.abc import Mapping

from serving.api.resolve.asked import CHOICE_FIELD, Asked, field_of
from serving.errors import FailedPrecondition, invalid
from serving.families.capability import Capability, Method, Parameter
from serving.families.request import Operation, Value

MAX_STRINGS = 16
MAX_STRING = 256  # characters

_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "string": (str,),
    "strings": (tuple,),
}


def method_of(asked: Asked, capabilities: tuple[Capability, ...]) -> tuple[Method, dict[str, Value]]:
    """The method that answers, and what was given for it; FailedPrecondition where none can.

    What selects a method (``sampler``, ``method``, ``path``) is one of its parameters instead where the
    default method lists it as such.
    """
    capability = _capability(asked.operation, capabilities)
    given = dict(asked.parameters)
    if asked.choice is None:
        return capability.default, given
    field = CHOICE_FIELD[asked.operation]
    name = field.rpartition(".")[2]
    if any(parameter.name == name for parameter in capability.default.parameters):
        return capability.default, {**given, name: asked.choice}
    for method in capability.methods:
        if method.name == asked.choice:
            return method, given
    known = ", ".join(method.name for method in capability.methods)
    raise invalid(field, f"{asked.choice!r} is not offered; this model has {known}")


def values_of(operation: Operation, method: Method, given: Mapping[str, Value]) -> dict[str, Value]:
    """Every parameter of the method, given or by default; those without either are left out."""
    known = {parameter.name: parameter for parameter in method.parameters}
    for name, value in given.items():
        field = field_of(operation, name)
        if name not in known:
            listed = ", ".join(known) or "none"
            raise invalid(field, f"{operation} by {method.name!r} has no such parameter; it has {listed}")
        _check(field, known[name], value)
    defaults = {p.name: p.default for p in method.parameters if p.default is not None}
    return {**defaults, **given}


def _capability(operation: Operation, capabilities: tuple[Capability, ...]) -> Capability:
    for capability in capabilities:
        if capability.operation is operation and capability.supported:
            return capability
        if capability.operation is operation:
            raise FailedPrecondition(f"{operation} is undefined for this model: {capability.reason}")
    raise FailedPrecondition(f"{operation} is undefined for this model")


def _check(field: str, parameter: Parameter, value: Value) -> None:
    wanted = _PYTHON_TYPES[parameter.type]
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise invalid(field, f"must be of type {parameter.type}")
    if parameter.choices and value not in parameter.choices:
        raise invalid(field, f"{value!r} is none of {', '.join(parameter.choices)}")
    if isinstance(value, tuple):
        _check_strings(field, value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_range(field, parameter, value)


def _check_strings(field: str, values: tuple[str, ...]) -> None:
    if len(values) > MAX_STRINGS or not all(1 <= len(value) <= MAX_STRING for value in values):
        raise invalid(field, f"at most {MAX_STRINGS} strings of 1..{MAX_STRING} characters each")


def _check_range(field: str, parameter: Parameter, value: float) -> None:
    if not math.isfinite(value):
        raise invalid(field, f"{value} is not a finite number")
    if parameter.minimum is not None and value < parameter.minimum:
        raise invalid(field, f"{value} is below the least value {parameter.minimum:g}")
    if parameter.maximum is not None and value > parameter.maximum:
        raise invalid(field, f"{value} is above the largest value {parameter.maximum:g}")
