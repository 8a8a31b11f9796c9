"""What every part of a specification is built from: frozen, checked when made, unknown keys are errors."""

from __future__ import annotations

from dataclasses import field
from typing import Any, TypeVar, dataclass_transform

import pydantic
import pydantic.dataclasses
from pydantic import ConfigDict

T = TypeVar("T")

_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)


@dataclass_transform(frozen_default=True, field_specifiers=(field, pydantic.Field))
def specification(cls: type[T]) -> type[T]:
    """A frozen dataclass whose values are checked: pydantic.ValidationError where one is wrong."""
    made: Any = pydantic.dataclasses.dataclass(cls, frozen=True, config=_CONFIG)
    return made  # type: ignore[no-any-return]
