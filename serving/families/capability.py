"""What a model can be asked: operations, methods, parameters; the only source of validation and GetModel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from serving.families.request import Operation, Value

ParameterType = Literal["bool", "int", "float", "string", "strings"]


@dataclass(frozen=True)
class Parameter:
    """A named knob of a method, under the Python client's name (and the message field's).

    ``default`` None means: absent unless set. ``minimum`` and ``maximum`` are inclusive.
    """

    name: str
    type: ParameterType
    default: Value | None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """One way to answer an operation. ``kind`` is the kind of its answers, upper case (EXACT, ...).

    ``reference`` cites the paper; ``row_seconds`` is measured at the defaults on an idle engine.
    """

    name: str
    kind: str
    parameters: tuple[Parameter, ...] = ()
    is_default: bool = False
    reference: str = ""
    row_seconds: float = 0.0


@dataclass(frozen=True)
class Capability:
    """An operation: supported by at least one method, or refused with a reason and an alternative."""

    operation: Operation
    methods: tuple[Method, ...] = ()
    reason: str = ""  # why not, and what to use instead

    @property
    def supported(self) -> bool:
        """Whether any method answers it."""
        return bool(self.methods)

    @property
    def default(self) -> Method:
        """The method that is used where the request names none."""
        return next(method for method in self.methods if method.is_default)

    def measured(self, row_seconds: dict[str, float]) -> Capability:
        """The same, with measured costs by method name."""
        return replace(
            self,
            methods=tuple(
                replace(m, row_seconds=row_seconds.get(m.name, m.row_seconds)) for m in self.methods
            ),
        )


def undefined(operation: Operation, reason: str) -> Capability:
    """An operation that this family has no meaning for."""
    return Capability(operation, (), reason)
