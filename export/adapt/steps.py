"""Steps between the values of a package and those of a user's network, each written twice: torch and ONNX.

A step maps one tensor [rows, ...] to one tensor [rows, ...]; the two writings are compared by a test.
Real values are float32 in every step (the loop's own arithmetic never loses precision to an adapter).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from export.adapt.writer import ONNX_DTYPES, NodeWriter

LEAST_PROBABILITY = 1e-7  # probabilities are kept this far from 0 and 1 before their logarithm

Constant = npt.NDArray[Any]
POSITIVE, PROBABILITIES = "positive", "probabilities"  # what a step may be given (``takes``)


class Step(Protocol):
    """One tensor in, one tensor out."""

    def apply(self, x: Tensor, *constants: Tensor) -> Tensor:
        """The step on a tensor; ``constants`` are those that the step has, on x's device."""

    def write(self, writer: NodeWriter, x: str) -> str:
        """The step as nodes; the name of the result."""


@dataclass(frozen=True)
class Cast:
    """To another dtype."""

    dtype: str

    def apply(self, x: Tensor, *constants: Tensor) -> Tensor:
        """As torch rounds."""
        return x.to(getattr(torch, self.dtype))

    def write(self, writer: NodeWriter, x: str) -> str:
        """Cast."""
        return writer.node("Cast", [x], to=ONNX_DTYPES[self.dtype])


@dataclass(frozen=True)
class Transpose:
    """Axes in a new order; ``axes`` names all of them, rows (0) first."""

    axes: tuple[int, ...]

    def apply(self, x: Tensor, *constants: Tensor) -> Tensor:
        """permute."""
        return x.permute(self.axes)

    def write(self, writer: NodeWriter, x: str) -> str:
        """Transpose."""
        return writer.node("Transpose", [x], perm=list(self.axes))


@dataclass(frozen=True)
class Reshape:
    """Rows of another shape; at most one size may be -1 (whatever is left)."""

    sizes: tuple[int, ...]

    def apply(self, x: Tensor, *constants: Tensor) -> Tensor:
        """reshape."""
        return x.reshape(x.shape[0], *self.sizes)

    def write(self, writer: NodeWriter, x: str) -> str:
        """Reshape; 0 keeps the rows."""
        return writer.node("Reshape", [x, writer.integers([0, *self.sizes])])


@dataclass(frozen=True)
class Scale:
    """factor * x + offset; per channel (axis 1 of ``axes`` axes, rows included) where there are several."""

    factor: tuple[float, ...]
    offset: tuple[float, ...] = (0.0,)
    axes: int = 2

    def apply(self, x: Tensor, *constants: Tensor) -> Tensor:
        """In x's dtype."""
        return x * constants[0].to(x.dtype) + constants[1].to(x.dtype)

    def write(self, writer: NodeWriter, x: str) -> str:
        """Mul, Add."""
        factor, offset = self.constants()
        return writer.node("Add", [writer.node("Mul", [x, writer.constant(factor)]), writer.constant(offset)])

    def constants(self) -> tuple[Constant, ...]:
        """Factor and offset, broadcastable."""
        return self._array(self.factor), self._array(self.offset)

    def _array(self, values: Sequence[float]) -> Constant:
        shape = () if len(values) == 1 else (1, len(values), *[1] * (self.axes - 2))
        return np.asarray(values, np.float32).reshape(shape)


@dataclass(frozen=True)
class Log:
    """Natural logarithm."""

    takes = POSITIVE

    def apply(self, x: Tensor, *constants: Tensor) -> Tensor:
        """log."""
        return torch.log(x)

    def write(self, writer: NodeWriter, x: str) -> str:
        """Log."""
        return writer.node("Log", [x])


@dataclass(frozen=True)
class Logit:
    """ln p - ln(1 - p), p kept ``LEAST_PROBABILITY`` away from 0 and 1."""

    takes = PROBABILITIES

    def apply(self, x: Tensor, *constants: Tensor) -> Tensor:
        """In x's dtype."""
        p = x.clamp(LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY)
        return torch.log(p) - torch.log(1.0 - p)

    def write(self, writer: NodeWriter, x: str) -> str:
        """Clip, Log, Sub."""
        ends = writer.number(LEAST_PROBABILITY), writer.number(1.0 - LEAST_PROBABILITY)
        p = writer.node("Clip", [x, *ends])
        rest = writer.node("Sub", [writer.number(1.0), p])
        return writer.node("Sub", [writer.node("Log", [p]), writer.node("Log", [rest])])


@dataclass(frozen=True)
class LogProbability:
    """ln p, p at least ``LEAST_PROBABILITY``: logits of the same law."""

    takes = PROBABILITIES

    def apply(self, x: Tensor, *constants: Tensor) -> Tensor:
        """clamp, log."""
        return torch.log(x.clamp(LEAST_PROBABILITY, 1.0))

    def write(self, writer: NodeWriter, x: str) -> str:
        """Clip, Log."""
        ends = writer.number(LEAST_PROBABILITY), writer.number(1.0)
        return writer.node("Log", [writer.node("Clip", [x, *ends])])


@dataclass(frozen=True)
class Part:
    """One of ``count`` equal parts of axis 1, which has ``size`` entries in all."""

    index: int
    count: int
    size: int

    def apply(self, x: Tensor, *constants: Tensor) -> Tensor:
        """A slice."""
        start, end = self._ends
        return x[:, start:end]

    def write(self, writer: NodeWriter, x: str) -> str:
        """Slice."""
        ends = [writer.integers([end]) for end in self._ends]
        return writer.node("Slice", [x, *ends, writer.integers([1])])

    @property
    def _ends(self) -> tuple[int, int]:
        width = self.size // self.count
        return self.index * width, (self.index + 1) * width


@dataclass(frozen=True)
class Reorder:
    """Entry i of axis 1 is the old entry ``index[i]``."""

    index: tuple[int, ...]

    def apply(self, x: Tensor, *constants: Tensor) -> Tensor:
        """index_select."""
        return x.index_select(1, constants[0])

    def write(self, writer: NodeWriter, x: str) -> str:
        """Gather."""
        return writer.node("Gather", [x, writer.integers(self.index)], axis=1)

    def constants(self) -> tuple[Constant, ...]:
        """The index."""
        return (np.asarray(self.index, np.int64),)


@dataclass(frozen=True)
class OneHot:
    """Ids [rows, *shape] to float32 [rows, *shape, depth], or [rows, depth, *shape] where ``first``."""

    depth: int
    first: bool = False

    def apply(self, x: Tensor, *constants: Tensor) -> Tensor:
        """1 at the id; ids outside 0 .. depth - 1 are all zeros."""
        # 0 .. depth - 1 along a new axis, made of x so that a trace names no device
        known = torch.ones_like(x).long().unsqueeze(-1).expand(*x.shape, self.depth).cumsum(-1) - 1
        hot = (x.long().unsqueeze(-1) == known).to(torch.float32)
        return hot.movedim(-1, 1) if self.first else hot

    def write(self, writer: NodeWriter, x: str) -> str:
        """OneHot."""
        ends = writer.constant(np.array([0.0, 1.0], np.float32))
        depth = writer.constant(np.array(self.depth, np.int64))
        return writer.node("OneHot", [x, depth, ends], axis=1 if self.first else -1)


@dataclass(frozen=True)
class WithZero:
    """[rows, n] to [rows, n, 2]: zeros, then x; the logits of two symbols from the log-odds of the second."""

    def apply(self, x: Tensor, *constants: Tensor) -> Tensor:
        """stack."""
        return torch.stack([torch.zeros_like(x), x], dim=-1)

    def write(self, writer: NodeWriter, x: str) -> str:
        """Concat of zeros."""
        column = writer.node("Reshape", [x, writer.integers([0, -1, 1])])
        zeros = writer.node("Mul", [column, writer.number(0.0)])
        return writer.node("Concat", [zeros, column], axis=-1)


@dataclass(frozen=True)
class NormalToUniform:
    """Standard normal z to a uniform in (low, high): low + (high - low) Phi(z), the same law exactly."""

    low: float
    high: float

    def apply(self, x: Tensor, *constants: Tensor) -> Tensor:
        """By erf."""
        half = 0.5 * (self.high - self.low)
        return torch.erf(x * 2.0**-0.5) * half + (self.low + half)

    def write(self, writer: NodeWriter, x: str) -> str:
        """Erf."""
        half = 0.5 * (self.high - self.low)
        inside = writer.node("Erf", [writer.node("Mul", [x, writer.number(2.0**-0.5)])])
        scaled = writer.node("Mul", [inside, writer.number(half)])
        return writer.node("Add", [scaled, writer.number(self.low + half)])


def apply_all(steps: Sequence[Step], x: Tensor) -> Tensor:
    """All steps in order."""
    for step in steps:
        x = step.apply(x, *(torch.from_numpy(value).to(x.device) for value in constants_of(step)))
    return x


def constants_of(step: Step) -> tuple[Constant, ...]:
    """Arrays that a step holds."""
    found: tuple[Constant, ...] = getattr(step, "constants", tuple)()
    return found


def write_all(steps: Sequence[Step], writer: NodeWriter, x: str) -> str:
    """All steps in order, as nodes."""
    for step in steps:
        x = step.write(writer, x)
    return x
