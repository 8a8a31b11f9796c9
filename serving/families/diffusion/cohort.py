"""Rows that step together: what is the same for all of them, found once per set of slots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.philox import STREAMS_PER_PARTICLE
from serving.families.diffusion.plan import Plan
from serving.families.rows import Slots

Ints = NDArray[np.int64]
Floats32 = NDArray[np.float32]


_NOWHERE = np.array([[-1], [0], [0]])


class Columns:
    """One entry per slot: where its row is in the arena, what its plan needs, and whose noise it draws.

    Quantities of one type are rows of one array, so that a row comes or goes in a few writes.
    """

    def __init__(self, capacity: int) -> None:
        self._places = np.zeros((5, capacity), np.int64)
        self._noise = np.zeros((3, capacity), np.int64)
        self._flags = np.zeros((5, capacity), np.bool_)
        self.first, self.line, self.end, self.depth, self.width = self._places
        self.seed, self.row, self.words = self._noise  # words of the noise stream, before the stream itself
        self.guided, self.masked, self.learned, self.direct, self.special = self._flags
        self.rescale, self.threshold = np.zeros(capacity, np.float32), np.zeros(capacity, np.float32)
        self.specials = 0  # how many slots have rows whose step is more than coefficients
        self.first[:], self.width[:] = -1, 1  # -1: no plan

    def begin(self, slots: Slots, plan: Plan, first: int, masked: bool) -> None:
        """Rows that start the plan, whose lines begin at ``first``."""
        places = np.array([[first], [first], [first + len(plan)], [plan.depth], [1 + plan.guided]])
        self._places[:, slots] = places
        self._flags[:, slots] = np.array(
            [[plan.guided], [masked], [plan.learned], [plan.direct], [plan.special]]
        )
        if plan.special:
            self.specials += len(slots)
            self.rescale[slots], self.threshold[slots] = plan.rescale, plan.threshold

    def identify(self, slots: Slots, seed: int, row: Ints, particle: Ints | None) -> None:
        """Whose noise the rows draw."""
        self.seed[slots], self.row[slots] = np.uint64(seed).astype(np.int64), row
        self.words[slots] = 0 if particle is None else STREAMS_PER_PARTICLE * particle

    def clear(self, slots: Slots) -> Ints:
        """Forget the slots' rows; the first lines of those that had any."""
        used = self.first[slots]
        if self.specials:
            self.specials -= int(self.special[slots].sum())
            self.special[slots], self.rescale[slots], self.threshold[slots] = False, 0.0, 0.0
        self._places[:3, slots] = _NOWHERE
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
