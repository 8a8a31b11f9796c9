"""Rows that step together: what is the same for all of them, found once per set of slots."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.philox import STREAMS_PER_PARTICLE
from kernels.table import ENTRY, FLAGS, INTEGERS, NUMBERS
from serving.families.diffusion.plan import Plan
from serving.families.rows import Slots

Ints = NDArray[np.int64]
Floats32 = NDArray[np.float32]


WORD = 1 << 64
WHOLE = np.dtype((np.void, ENTRY.itemsize))


class Noise(NamedTuple):
    """Whose noise rows draw: ``row`` [rows] of the request's ``seed``, and ``particle`` [rows] or None."""

    seed: int
    row: Ints
    particle: Ints | None


class Columns:
    """One entry per slot: where its row is in the arena, what its plan needs, and whose noise it draws."""

    def __init__(self, capacity: int) -> None:
        self.entries = np.zeros(capacity, ENTRY)
        nobody = np.zeros((), ENTRY)
        nobody["first"], nobody["width"] = -1, 1  # -1: no plan
        self.entries[:] = nobody
        self._whole = self.entries.view(WHOLE)  # NumPy writes entries that it knows nothing of at once
        self._nobody = nobody.reshape(1).view(WHOLE)
        self._entry = np.zeros(1, ENTRY)  # of rows that come
        self._entry_whole = self._entry.view(WHOLE)
        self.first, self.line, self.end, self.depth, self.width, self.seed, self.row, self.words = (
            self.entries[name] for name in INTEGERS
        )
        self.guided, self.masked, self.learned, self.direct, self.special = (
            self.entries[name] for name in FLAGS
        )
        self.rescale, self.threshold = (self.entries[name] for name in NUMBERS)
        self.specials = 0  # how many slots have rows whose step is more than coefficients

    def begin(self, slots: Slots, plan: Plan, first: int, masked: bool, noise: Noise) -> None:
        """Rows that start the plan, whose lines begin at ``first``."""
        seed = noise.seed - WORD if noise.seed >= WORD // 2 else noise.seed
        places = first, first, first + len(plan), plan.depth, 1 + plan.guided, seed, 0, 0
        flags = plan.guided, masked, plan.learned, plan.direct, plan.special
        self._entry[0] = (*places, *flags, plan.rescale, plan.threshold)
        self._whole[slots] = self._entry_whole
        self.row[slots] = noise.row
        if noise.particle is not None:
            self.words[slots] = STREAMS_PER_PARTICLE * noise.particle
        if plan.special:
            self.specials += len(slots)

    def clear(self, slots: Slots) -> Ints:
        """Forget the slots' rows; the first lines of those that had any."""
        used = self.first[slots]
        if self.specials:
            self.specials -= int(self.special[slots].sum())
        self._whole[slots] = self._nobody
        return used[used >= 0]

    def cursor(self, slots: Slots) -> Ints:
        """Lines done."""
        return np.asarray(self.line[slots] - self.first[slots], np.int64)


class Cohort:
    """Which of the rows need what."""

    def __init__(self, slots: Slots, columns: Columns) -> None:
        self.slots = slots
        self.rows = len(slots)
        self.depth = int(columns.depth[slots].max(initial=0))
        self.learned = bool(columns.learned[slots].any())
        self.direct = bool(columns.direct[slots].any())
        self.guided: NDArray[np.bool_] = columns.guided[slots]
        self.twice = np.flatnonzero(self.guided)
        self.twin = _twins(self.guided, self.rows) if len(self.twice) else None
        self.rescale: Floats32 = columns.rescale[slots]
        self.threshold: Floats32 = columns.threshold[slots]
        self.bounded = np.flatnonzero(self.threshold)  # rows of dynamic thresholding
        self.rescaled = bool(len(self.twice)) and bool(self.rescale.any())
        self.masked = np.flatnonzero(columns.masked[slots])


def _twins(guided: NDArray[np.bool_], rows: int) -> Ints:
    """For each row, the network row of its unconditional twin; its own where it has none."""
    return np.where(guided, rows - 1 + np.cumsum(guided), np.arange(rows))
