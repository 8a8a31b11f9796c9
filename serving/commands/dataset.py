"""Rows from a file, in a model's data space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.package.schema import ModelSpec
from serving.errors import invalid
from serving.families.request import Array


@dataclass(frozen=True)
class Dataset:
    """``data`` [rows, *shape]; ``lengths`` [rows] where rows differ; ``conditions`` [rows] by name."""

    data: Array
    lengths: NDArray[np.int32] | None
    conditions: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Dataset:
        lengths = None if self.lengths is None else self.lengths[rows]
        return Dataset(self.data[rows], lengths, {n: v[rows] for n, v in self.conditions.items()})


def read_dataset(path: Path, spec: ModelSpec) -> Dataset:
    """Read ``.npz`` (data, lengths, one array per condition), ``.npy``, or ``.txt`` (one row per line)."""
    if path.suffix == ".txt":
        rows = [line.encode() for line in path.read_text().splitlines() if line]
        return _from_bytes(rows, spec.data.max_length)
    arrays = dict(np.load(path)) if path.suffix == ".npz" else {"data": np.load(path)}
    if "data" not in arrays:
        raise invalid("data", f"{path.name} has no array 'data' (it has: {', '.join(arrays) or 'none'})")
    data = arrays["data"]
    shape = tuple(data.shape[1:])
    if not spec.data.variable and shape != spec.data.shape:
        raise invalid("data", f"rows have shape {shape}; {spec.name} needs {spec.data.shape}")
    if data.dtype != np.dtype(spec.data.dtype):
        raise invalid("data", f"dtype is {data.dtype}; {spec.name} needs {spec.data.dtype}")
    conditions = {c.name: arrays[c.name].astype(np.int64) for c in spec.conditions if c.name in arrays}
    return Dataset(data, _lengths(arrays, data), conditions)


def _lengths(arrays: Mapping[str, Array], data: Array) -> NDArray[np.int32] | None:
    return arrays["lengths"].astype(np.int32) if "lengths" in arrays else None


def _from_bytes(rows: list[bytes], max_length: int) -> Dataset:
    rows = [row[:max_length] for row in rows]
    data = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for index, row in enumerate(rows):
        data[index, : len(row)] = np.frombuffer(row, np.uint8)
    return Dataset(data, np.array([len(row) for row in rows], np.int32), {})
