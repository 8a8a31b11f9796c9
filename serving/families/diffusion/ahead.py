"""Noise drawn several steps ahead: one vectorised Philox call for many rows and lines."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.philox import philox_normal
from serving.families.rows import Slots

STEPS_AHEAD = 16
_LARGEST_BYTES = 64 * 2**20


class NoiseAhead:
    """Unit normals [slots, ahead, n] of one stream; a window of lines per slot, redrawn when used up.

    Each value is a function of (seed, row, line, stream, element), so windows never show in results.
    """

    def __init__(self, capacity: int, n: int) -> None:
        self._ahead = int(np.clip(_LARGEST_BYTES // (4 * capacity * n), 1, STEPS_AHEAD))
        self._buffer = torch.zeros((capacity * self._ahead, n), dtype=torch.float32)
        self._first = np.zeros(capacity, np.int64)
        self._end = np.zeros(capacity, np.int64)  # window: lines first .. end - 1

    def forget(self, slots: Slots) -> None:
        """Windows of new rows are empty."""
        self._end[slots] = 0

    def take(
        self, slots: Slots, lines: NDArray[np.int64], identity: Identity, left: NDArray[np.int64]
    ) -> torch.Tensor:
        """Normals [slots, n] for each slot's line; ``left`` lines bound what is worth drawing."""
        stale = np.flatnonzero(lines >= self._end[slots])
        if len(stale):
            self._draw(slots[stale], lines[stale], identity, int(left[stale].max()))
        index = slots * self._ahead + (lines - self._first[slots])
        return self._buffer.index_select(0, torch.from_numpy(index))

    def _draw(self, slots: Slots, lines: NDArray[np.int64], identity: Identity, left: int) -> None:
        count = min(self._ahead, left)
        window = lines[:, None] + np.arange(count)
        seed, row, stream = identity.of(slots)
        normals = philox_normal(seed, row, torch.from_numpy(window), stream, self._buffer.shape[1])
        target = (slots[:, None] * self._ahead + np.arange(count)).reshape(-1)
        self._buffer.index_copy_(0, torch.from_numpy(target), normals.reshape(-1, self._buffer.shape[1]))
        self._first[slots], self._end[slots] = lines, lines + count


class Identity:
    """Who a slot's noise belongs to, in one stream: int64 views of the table's columns."""

    def __init__(
        self, seed: NDArray[np.int64], row: NDArray[np.int64], words: NDArray[np.int64], stream: int
    ) -> None:
        self._columns = (seed, row, words)
        self._stream = stream

    def of(self, slots: Slots) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(seed, row, stream word) of the slots."""
        seed, row, words = (torch.from_numpy(column[slots]) for column in self._columns)
        return seed, row, words + self._stream
