"""Rows as sequences of symbols, and symbols as the network reads them.

A row of data is flattened in data order (C order of its shape; images: raster). Networks with
``shifted_input`` read a begin symbol first, so input i is symbol i - 1; networks without it (masked
convolutions) read the symbols themselves and always the whole row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.package.schema import Autoregressive, DataSpace, ModelSpec
from serving.families.request import Array, Request

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]

WIDTHS = 8  # causal networks run on prefixes of at most this many lengths, multiples of 8


class Alphabet:
    """Symbols of one package: sizes, begin symbols, and the layout of rows."""

    def __init__(self, spec: ModelSpec) -> None:
        assert spec.autoregressive is not None
        self.section: Autoregressive = spec.autoregressive
        self.data: DataSpace = spec.data
        self.length = spec.data.elements  # of a row, at most
        self.size = self.section.vocabulary
        self.variable = spec.data.variable
        self.ends: Ids = np.array(self.section.end_symbols if self.variable else (), np.int64)
        self.step = -(-self.length // (8 * WIDTHS)) * 8
        self.cached = "decoder" in spec.components
        self.scored_by_decoder = "scorer" not in spec.components  # which then gives log_prob, too
        self.fixed_width = self._fixed_width(spec)

    def _fixed_width(self, spec: ModelSpec) -> int | None:
        """The only width that the scorer takes: of its graph, or all symbols for masked convolutions."""
        if "scorer" not in spec.components:
            return None
        width = next(port.shape[1] for port in spec.components["scorer"].inputs if port.name == "tokens")
        if isinstance(width, int):
            return width
        return None if self.section.shifted_input else self.length

    def begin(self, request: Request) -> Ids:
        """The begin symbol of each row, [rows] int64; a class condition selects it where declared."""
        name = self.section.begin_condition
        if name is not None and name in request.conditions:
            values = np.asarray(request.conditions[name], np.int64).reshape(-1)
            return np.broadcast_to(values + self.section.begin_offset, (request.rows,)).copy()
        return np.full(request.rows, self.section.begin_symbol or 0, np.int64)

    def flat(self, data: Array) -> Ids:
        """[rows, *shape] data to [rows, symbols] int64."""
        return np.ascontiguousarray(data, np.int64).reshape(len(data), -1)

    def padded(self, symbols: Ids) -> Ids:
        """[rows, n] to [rows, length], zeros after the end."""
        rows, n = symbols.shape
        whole = np.zeros((rows, self.length), np.int64)
        whole[:, : min(n, self.length)] = symbols[:, : self.length]
        return whole

    def counts(self, rows: int, width: int, lengths: NDArray[np.int32] | None) -> Ids:
        """Symbols of each row, [rows] int64."""
        if lengths is None:
            return np.full(rows, width, np.int64)
        return np.minimum(np.asarray(lengths, np.int64), width)

    def shaped(self, symbols: NDArray[np.generic], dtype: str | None = None) -> Array:
        """[rows, n] to [rows, *shape]; where the length varies, n stays."""
        shape = tuple(symbols.shape[1] if size == -1 else size for size in self.data.shape)
        return np.ascontiguousarray(symbols, dtype or self.data.dtype).reshape(len(symbols), *shape)

    def width(self, needed: Ids) -> Ids:
        """Network width for each row that needs ``needed`` predictions: a function of the row alone."""
        if self.fixed_width is not None:
            return np.full_like(needed, self.fixed_width)
        if self.scored_by_decoder:
            step = np.where(needed <= 128, 16, np.where(needed <= 512, 64, 256))
            return np.minimum(-(-needed // step) * step, self.length)
        return np.minimum(-(-needed // self.step) * self.step, self.length)

    def network_input(self, begin: Ids, symbols: Ids, width: int) -> Ids:
        """[rows, width] int64 as the scorer reads it, whose output i predicts symbol i."""
        tokens = np.zeros((len(symbols), width), np.int64)
        start = int(self.section.shifted_input)
        read = symbols[:, : width - start]
        tokens[:, :start] = begin[:, None]
        tokens[:, start : start + read.shape[1]] = read
        return tokens


def row_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over the last axis, added in order: padding with zeros changes no bit of them."""
    if values.shape[-1] == 0:
        return np.zeros(values.shape[:-1], np.float64)
    return np.asarray(np.cumsum(values, axis=-1)[..., -1])
