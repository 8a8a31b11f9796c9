"""The sections of ``model.yaml`` about data: what a row is, and what it may depend on."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from export.package.record import DType, Record


class Affine(Record):
    """Model value = scale * data value + shift, per channel (one entry: for all of them)."""

    kind: Literal["affine"] = "affine"
    scale: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)

    @model_validator(mode="after")
    def _matching(self) -> Self:
        if len(self.scale) != len(self.shift) or 0.0 in self.scale:
            raise ValueError("transform: scale and shift need the same length, and no scale may be 0")
        return self


class Identity(Record):
    """Model values are the data values (token ids, vectors)."""

    kind: Literal["identity"] = "identity"


class Palette(Record):
    """Levels are entries of a list of colours; pictures show the colours, and take the nearest one's entry.

    Distances are Euclidean between RGB values (Chen et al. 2020, "Generative Pretraining from Pixels").
    """

    kind: Literal["palette"] = "palette"
    colors: tuple[tuple[float, float, float], ...]  # [levels] RGB in 0 .. 255

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if any(not 0.0 <= value <= 255.0 for color in self.colors for value in color):
            raise ValueError("transform: colors lie in 0 .. 255")
        return self


class DataSpace(Record):
    """What a row is to the user: levels of an image, token ids, or a vector of floats."""

    kind: Literal["image", "tokens", "vector"]
    axes: tuple[str, ...]
    shape: tuple[int, ...]  # -1: variable length (tokens only)
    dtype: DType
    levels: int = 0  # number of integer values (0 .. levels-1); 0 for real data
    transform: Annotated[Affine | Identity | Palette, Field(discriminator="kind")] = Identity()
    max_length: int = 0  # of a variable axis

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.axes) != len(self.shape):
            raise ValueError(f"data: {len(self.axes)} axes but {len(self.shape)} sizes")
        if not self.shape or any(size < 1 and size != -1 for size in self.shape):
            raise ValueError("data: shape needs at least one size, each positive (or -1: variable)")
        if -1 in self.shape and (self.kind != "tokens" or self.max_length < 1):
            raise ValueError("data: a variable axis (-1) needs kind tokens and max_length")
        if self.kind == "tokens" and self.levels < 2:
            raise ValueError("data: tokens need levels (the size of the vocabulary)")
        if self.levels > 256 and self.dtype == "uint8":
            raise ValueError(f"data: {self.levels} levels do not fit into uint8")
        return self

    @model_validator(mode="after")
    def _channels(self) -> Self:
        entries = len(self.transform.scale) if isinstance(self.transform, Affine) else 1
        colors = len(self.transform.colors) if isinstance(self.transform, Palette) else self.levels
        if colors != self.levels:
            raise ValueError(f"data: {colors} colors for {self.levels} levels")
        if entries not in (1, self.shape[0]):
            raise ValueError(f"data: transform has {entries} entries for {self.shape[0]} channels")
        return self

    @property
    def variable(self) -> bool:
        """Whether rows may differ in length."""
        return -1 in self.shape

    @property
    def elements(self) -> int:
        """Elements of one row (at most, where the length varies)."""
        return math.prod(self.max_length if size == -1 else size for size in self.shape)


class Condition(Record):
    """A named input of the user's that the model was trained to depend on.

    text: a string, which ``tokenizer.json`` turns into ids, and the component ``text_encoder`` into hidden
    states [length, width] (``shape``), which the network reads; ``null_tokens``: the ids of no text.
    """

    name: str
    kind: Literal["class", "vector", "text"]
    classes: int = 0
    class_names: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    null_value: int | None = None  # the class id that means "none given"
    null_tokens: tuple[int, ...] = ()
    when_absent: Literal["required", "null"] = "required"

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Only a text has null_tokens, so that packages from before there were texts keep their digests."""
        found: dict[str, Any] = handler(self)
        if not self.null_tokens:
            found.pop("null_tokens", None)
        return found

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "class" and self.classes < 1:
            raise ValueError(f"condition {self.name}: a class condition needs classes")
        if self.when_absent == "null" and self.null_value is None and self.kind == "class":
            raise ValueError(f"condition {self.name}: when_absent null needs null_value")
        if self.kind == "text" and (len(self.shape) != 2 or len(self.null_tokens) != self.shape[0]):
            raise ValueError(f"condition {self.name}: a text needs shape [length, width] and its null_tokens")
        if self.class_names and len(self.class_names) != self.classes:
            raise ValueError(f"condition {self.name}: {self.classes} classes need as many names")
        return self
