"""What a model was trained to depend on beside the data."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from export.model.record import specification


@specification
class ClassCondition:
    """A class id 0 .. classes - 1, int64 [rows].

    ``null_value``: the id that the network was trained to read as "no class given" (often ``classes``);
    without one every request must name a class, and there is no guidance. ``names``: one per class.
    ``one_hot``: the network wants float32 [rows, classes] (with a null, a row of zeros stands for it).
    """

    name: str
    classes: Annotated[int, Field(ge=1)]
    null_value: int | None = field(default=None, kw_only=True)
    names: tuple[str, ...] = field(default=(), kw_only=True)
    one_hot: bool = field(default=False, kw_only=True)
    kind: Literal["class"] = field(default="class", kw_only=True)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.names and len(self.names) != self.classes:
            raise ValueError(f"{len(self.names)} names for {self.classes} classes")
        return self

    def section(self) -> dict[str, Any]:
        """An entry of ``conditions`` in ``model.yaml``."""
        found: dict[str, Any] = {"name": self.name, "kind": "class", "classes": self.classes}
        if self.names:
            found["class_names"] = list(self.names)
        if self.null_value is not None:
            found |= {"null_value": self.null_value, "when_absent": "null"}
        return found


@specification
class VectorCondition:
    """Real numbers, float32 [rows, *shape]; every request must give them."""

    name: str
    shape: tuple[Annotated[int, Field(ge=1)], ...]
    kind: Literal["vector"] = field(default="vector", kw_only=True)

    def section(self) -> dict[str, Any]:
        """An entry of ``conditions`` in ``model.yaml``."""
        return {"name": self.name, "kind": "vector", "shape": list(self.shape)}


@specification
class TextCondition:
    """A text, which a text encoder turns into hidden states, float32 [rows, length, width]; absent: no text.

    ``null_tokens``: the ids of no text [length].
    """

    name: str
    shape: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    null_tokens: tuple[int, ...]
    kind: Literal["text"] = field(default="text", kw_only=True)

    def section(self) -> dict[str, Any]:
        """An entry of ``conditions`` in ``model.yaml``."""
        found = {"name": self.name, "kind": "text", "shape": list(self.shape), "when_absent": "null"}
        return found | {"null_tokens": list(self.null_tokens)}


ConditionSpec = Annotated[ClassCondition | VectorCondition | TextCondition, Field(discriminator="kind")]
