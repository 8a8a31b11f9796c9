"""What one row of data is: an image, a sequence of tokens, or a vector of numbers."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from export.model.record import specification

Positive = Annotated[int, Field(ge=1)]
Range = tuple[float, float]


@specification
class Image:
    """Pixels [channels, height, width]; the server's callers see whole levels 0 .. levels - 1.

    ``levels``: how many values a pixel has (256 for 8-bit images); 0: real numbers, float32.
    How the networks see them is one of ``data_range``, the values of the lowest and the highest level there
    (ToTensor gives ``(0, 1)``, most diffusion models ``(-1, 1)``), and ``mean`` with ``std``, per channel,
    of pixels in [0, 1] (torchvision's ``Normalize``). Autoregressive models read the levels themselves, and
    need neither.
    """

    channels: Positive
    height: Positive
    width: Positive
    levels: Annotated[int, Field(ge=0)] = field(kw_only=True)
    data_range: Range | None = field(default=None, kw_only=True)
    mean: tuple[float, ...] | None = field(default=None, kw_only=True)
    std: tuple[float, ...] | None = field(default=None, kw_only=True)
    kind: Literal["image"] = field(default="image", kw_only=True)

    @model_validator(mode="after")
    def _one_transform(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together")
        if self.mean is not None and self.data_range is not None:
            raise ValueError("give data_range, or mean and std, not both")
        if (self.data_range or self.mean) and self.levels == 1:
            raise ValueError("one level carries no data")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (1, self.channels):
                raise ValueError(f"{name} has {len(values)} entries for {self.channels} channels")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row."""
        return (self.channels, self.height, self.width)

    @property
    def scaled(self) -> bool:
        """Whether it is stated how networks see the pixels."""
        return self.data_range is not None or self.mean is not None

    def section(self) -> dict[str, Any]:
        """``data`` of ``model.yaml``."""
        return {
            "kind": "image",
            "axes": ["channel", "height", "width"],
            "shape": list(self.shape),
            "dtype": level_dtype(self.levels),
            "levels": self.levels,
            "transform": self._transform(),
        }

    def _transform(self) -> dict[str, Any]:
        top = self.levels - 1 if self.levels else 1
        if self.data_range is not None:
            low, high = self.data_range
            return {"kind": "affine", "scale": [(high - low) / top], "shift": [low]}
        if self.mean is not None and self.std is not None:
            scale = [1.0 / (top * spread) for spread in self.std]
            shift = [-mean / spread for mean, spread in zip(self.mean, self.std, strict=True)]
            return {"kind": "affine", "scale": scale, "shift": shift}
        return {"kind": "identity"}


@specification
class Vector:
    """``size`` real numbers, float32. The networks see (x - mean) / std; one entry stands for all."""

    size: Positive
    mean: float = field(default=0.0, kw_only=True)
    std: Annotated[float, Field(gt=0)] = field(default=1.0, kw_only=True)
    kind: Literal["vector"] = field(default="vector", kw_only=True)

    levels = 0
    scaled = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row."""
        return (self.size,)

    def section(self) -> dict[str, Any]:
        """``data`` of ``model.yaml``."""
        transform: dict[str, Any] = {"kind": "identity"}
        if (self.mean, self.std) != (0.0, 1.0):
            scale, shift = 1.0 / self.std, -self.mean / self.std
            transform = {"kind": "affine", "scale": [scale], "shift": [shift]}
        return {
            "kind": "vector",
            "axes": ["element"],
            "shape": [self.size],
            "dtype": "float32",
            "transform": transform,
        }


@specification
class Tokens:
    """Ids 0 .. vocabulary - 1, int32: ``length`` of them, or (``variable``) at most that many.

    ``tokenizer``: ``bytes`` where id b is the byte b, so that callers may send text.
    """

    vocabulary: Annotated[int, Field(ge=2)]
    length: Positive
    variable: bool = field(default=False, kw_only=True)
    tokenizer: Literal["none", "bytes"] = field(default="none", kw_only=True)
    kind: Literal["tokens"] = field(default="tokens", kw_only=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row."""
        return (-1,) if self.variable else (self.length,)

    @property
    def levels(self) -> int:
        """Values that an entry may have."""
        return self.vocabulary

    def section(self) -> dict[str, Any]:
        """``data`` of ``model.yaml``."""
        found: dict[str, Any] = {
            "kind": "tokens",
            "axes": ["position"],
            "shape": list(self.shape),
            "dtype": "int32",
            "levels": self.vocabulary,
        }
        return found | ({"max_length": self.length} if self.variable else {})


def level_dtype(levels: int) -> str:
    """The smallest dtype of the data space that holds all levels; real numbers are float32."""
    if not levels:
        return "float32"
    return "uint8" if levels <= 256 else "int32"


Space = Annotated[Image | Vector | Tokens, Field(discriminator="kind")]
