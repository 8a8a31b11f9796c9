"""A graph of a package, ready to run on one device over buffers that are allocated once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod

import torch

from export.package.schema import Component, TensorSpec
from kernels.finite import finite_check

Tensors = Mapping[str, torch.Tensor]
Dims = tuple[tuple[str, int], ...]  # sizes of the dynamic axes other than rows, sorted by name

TORCH_DTYPES = {
    "bool": torch.bool,
    "uint8": torch.uint8,
    "int32": torch.int32,
    "int64": torch.int64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}

BUFFER_BYTES = 256 * 2**20  # of one binding; bounds how many rows of a wide graph run at once
KEPT_BINDINGS = 16
KEPT_PARTS = 4096  # views of one binding's buffers


@dataclass(frozen=True)
class RuntimeOptions:
    """Where and how graphs run. ``fixed_rows``: 0, or the only row count that ever runs."""

    device: torch.device
    threads: int = 0
    max_rows: int = 64
    fixed_rows: int = 0


@dataclass(frozen=True)
class Part:
    """Some rows of a binding's buffers; ``checks`` are true where all floating point outputs are finite."""

    inputs: Tensors
    outputs: Tensors
    checks: tuple[Callable[[], object], ...]

    @classmethod
    def of(cls, binding: Binding, start: int, end: int) -> Part:
        """Rows ``start .. end``."""
        inputs = {name: value[start:end] for name, value in binding.inputs.items()}
        outputs = {name: value[start:end] for name, value in binding.outputs.items()}
        numbers = [value.flatten() for value in outputs.values() if value.is_floating_point()]
        return cls(inputs, outputs, tuple(finite_check(values) for values in numbers))

    def finite(self) -> bool:
        """Whether no floating point output holds NaN or infinity."""
        return all(finite() for finite in self.checks)


class Binding(ABC):
    """Input and output buffers [capacity, ...] of one graph at fixed dynamic sizes.

    The caller writes ``inputs[name][:rows]`` and calls ``run(rows)``; ``outputs[name][:rows]`` hold the
    answer until the next run. ``capturable``: runs may be recorded in a CUDA graph.
    """

    capturable = False

    def __init__(self, inputs: Tensors, outputs: Tensors, capacity: int) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.capacity = capacity
        self._parts: dict[tuple[int, int], Part] = {}

    def part(self, start: int, end: int) -> Part:
        """Views of rows ``start .. end``; kept, since making them costs more than a small step."""
        found = self._parts.get((start, end))
        if found is None:
            if len(self._parts) >= KEPT_PARTS:
                self._parts.clear()
            found = self._parts[start, end] = Part.of(self, start, end)
        return found

    @abstractmethod
    def run(self, rows: int) -> None:
        """One network run over the first ``rows`` rows; raises RuntimeError where the runtime does."""

    def bound(self, rows: int) -> Callable[[], object]:
        """``run`` of so many rows as a call without arguments."""
        return partial(self.run, rows)

    def pad(self, rows: int, fixed: int) -> None:
        """Fill the last block of ``fixed`` rows with the first row.

        What an earlier run left there would run again otherwise, and may be the row that made it fail.
        """
        for value in self.inputs.values():
            value[rows : -(-rows // fixed) * fixed] = value[:1]


class Network(ABC):
    """One component: makes bindings, and is a plain function of named tensors for tests and warm-up."""

    runtime: str
    probe_rows: int | None = None  # rows that say enough of a run; None: a full one

    def __init__(self, spec: Component, options: RuntimeOptions) -> None:
        self.spec = spec
        self.options = options
        self._bindings: OrderedDict[Dims, Binding] = OrderedDict()

    @property
    def specs(self) -> dict[str, tuple[torch.dtype, tuple[int | str, ...]]]:
        """Input name -> (dtype, row shape)."""
        return {i.name: (TORCH_DTYPES[i.dtype], i.row_shape) for i in self.spec.inputs}

    def fix_rows(self, rows: int) -> None:
        """From now on always run ``rows`` rows, padded: for graphs whose rows depend on their number."""
        self.options = RuntimeOptions(self.options.device, self.options.threads, self.options.max_rows, rows)
        self._bindings.clear()

    def dims(self, inputs: Tensors) -> Dims:
        """The dynamic sizes that ``inputs`` imply; ValueError where a fixed size does not match."""
        found: dict[str, int] = {}
        for spec in self.spec.inputs:
            for axis, size in zip(spec.shape[1:], inputs[spec.name].shape[1:], strict=True):
                if (isinstance(axis, str) and found.setdefault(axis, size) != size) or (
                    isinstance(axis, int) and axis != size
                ):
                    raise ValueError(f"{spec.name}: shape {tuple(inputs[spec.name].shape)} for {spec.shape}")
        return tuple(sorted(found.items()))

    def binding(self, dims: Dims = ()) -> Binding:
        """Buffers for these dynamic sizes; the least recently used ones are dropped."""
        if dims not in self._bindings:
            self._bindings[dims] = self._allocate(dims)
            if len(self._bindings) > KEPT_BINDINGS:
                self._bindings.popitem(last=False)
        self._bindings.move_to_end(dims)
        return self._bindings[dims]

    def __call__(self, inputs: Tensors) -> Tensors:
        """Any number of rows, in as many runs as it takes; returns copies."""
        binding = self.binding(self.dims(inputs))
        total = int(next(iter(inputs.values())).shape[0])
        pieces: list[Tensors] = []
        for start in range(0, total, binding.capacity):
            rows = min(binding.capacity, total - start)
            for name, value in inputs.items():
                binding.inputs[name][:rows].copy_(value[start : start + rows])
            binding.run(rows)
            pieces.append({name: value[:rows].clone() for name, value in binding.outputs.items()})
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def _allocate(self, dims: Dims) -> Binding:
        sizes = dict(dims)
        row_bytes = sum(_row_bytes(s, sizes) for s in (*self.spec.inputs, *self.spec.outputs))
        capacity = max(1, min(self.options.max_rows, BUFFER_BYTES // max(1, row_bytes)))
        if self.options.fixed_rows:
            capacity = max(capacity - capacity % self.options.fixed_rows, self.options.fixed_rows)
        device = self.options.device
        inputs = {s.name: _buffer(s, sizes, capacity, device) for s in self.spec.inputs}
        outputs = {s.name: _buffer(s, sizes, capacity, device) for s in self.spec.outputs}
        return self._bind(inputs, outputs, capacity)

    @abstractmethod
    def _bind(self, inputs: Tensors, outputs: Tensors, capacity: int) -> Binding:
        """A binding over these buffers."""


def _sizes(spec: TensorSpec, sizes: Mapping[str, int]) -> list[int]:
    return [axis if isinstance(axis, int) else sizes[axis] for axis in spec.row_shape]


def _row_bytes(spec: TensorSpec, sizes: Mapping[str, int]) -> int:
    return prod(_sizes(spec, sizes)) * TORCH_DTYPES[spec.dtype].itemsize


def _buffer(spec: TensorSpec, sizes: Mapping[str, int], rows: int, device: torch.device) -> torch.Tensor:
    return torch.zeros((rows, *_sizes(spec, sizes)), dtype=TORCH_DTYPES[spec.dtype], device=device)
