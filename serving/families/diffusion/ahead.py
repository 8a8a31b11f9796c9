"""Noise drawn several steps ahead: one vectorised Philox call for all rows, whenever one has none left."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.philox import philox_normal
from serving.families.diffusion.cohort import Cohort, Columns
from serving.families.rows import Slots

STEPS_AHEAD = 16
_LARGEST_BYTES = 64 * 2**20

Floats32 = NDArray[np.float32]


class NoiseAhead:
    """Unit normals of one stream: a ring of ``ahead`` plan lines per slot, filled up for all at once.

    Each value is a function of (seed, row, line, stream, element), so rings never show in results.
    """

    def __init__(self, columns: Columns, elements: int, stream: int) -> None:
        capacity = len(columns.first)
        self._columns, self._stream = columns, stream
        self._ahead = int(np.clip(_LARGEST_BYTES // (4 * capacity * elements), 1, STEPS_AHEAD))
        self._ring = np.zeros((capacity * self._ahead, elements), np.float32)
        self._end = np.zeros(capacity, np.int64)  # lines drawn so far
        self._cohort: Cohort | None = None  # the last one, which has noise for ``_left`` more ticks
        self._left = 0

    def forget(self, slots: Slots) -> None:
        """Rings of new rows are empty."""
        self._end[slots] = 0
        self._cohort = None

    def take(self, cohort: Cohort, drawing: NDArray[np.int64], out: Floats32) -> Floats32:
        """Normals [rows, elements] for each row's line; rows not in ``drawing`` get anything finite."""
        cursor = self._columns.cursor(cohort.slots)
        if cohort is not self._cohort or self._left == 0:
            self._left = self._fill(cohort.slots[drawing], cursor[drawing])
            self._cohort = cohort
        self._left -= 1
        index = cohort.slots * self._ahead + cursor % self._ahead
        return np.take(self._ring, index, axis=0, out=out, mode="clip")

    def _fill(self, slots: Slots, line: NDArray[np.int64]) -> int:
        """Draw what the rings lack, if any row lacks its next line; the ticks until one will."""
        end = self._end[slots]
        if bool((end <= line).any()):
            start = np.maximum(end, line)
            end = np.minimum(line + self._ahead, self._columns.end[slots] - self._columns.first[slots])
            self._draw(slots, start, np.maximum(end - start, 0))
            self._end[slots] = end
        return int((end - line).min())

    def _draw(self, slots: Slots, start: NDArray[np.int64], count: NDArray[np.int64]) -> None:
        slot = np.repeat(slots, count)
        line = np.arange(len(slot)) + np.repeat(start - (np.cumsum(count) - count), count)
        columns = self._columns
        seed, row = torch.from_numpy(columns.seed[slot]), torch.from_numpy(columns.row[slot])
        stream = torch.from_numpy(columns.words[slot] + self._stream)
        normals = philox_normal(seed, row, torch.from_numpy(line), stream, self._ring.shape[1])
        self._ring[slot * self._ahead + line % self._ahead] = normals.numpy()
