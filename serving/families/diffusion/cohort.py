"""Rows that step together: what is the same for all of them, found once per set of slots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.philox import STREAMS_PER_PARTICLE
from serving.families.diffusion.plan import Plan
from serving.families.rows import Slots

Ints = NDArray[np.int64]
Floats32 = NDArray[np.float32]


class Columns:
    """One entry per slot: where its row is in the arena, what its plan needs, and whose noise it draws."""

    def __init__(self, capacity: int) -> None:
        self.first = np.full(capacity, -1, np.int64)  # of the plan in the arena; -1: no plan
        self.line, self.end = np.zeros(capacity, np.int64), np.zeros(capacity, np.int64)
        self.depth = np.zeros(capacity, np.int64)
        self.learned = np.zeros(capacity, np.bool_)
        self.guided, self.draws = np.zeros(capacity, np.bool_), np.zeros(capacity, np.bool_)
        self.masked, self.clipped = np.zeros(capacity, np.bool_), np.zeros(capacity, np.bool_)
        self.rescale, self.threshold = np.zeros(capacity, np.float32), np.zeros(capacity, np.float32)
        self.seed, self.row = np.zeros(capacity, np.int64), np.zeros(capacity, np.int64)
        self.words = np.zeros(capacity, np.int64)  # of the noise stream, before the stream itself

    def begin(self, slots: Slots, plan: Plan, first: int, masked: bool) -> None:
        """Rows that start the plan, whose lines begin at ``first``."""
        self.first[slots], self.line[slots], self.end[slots] = first, first, first + len(plan)
        self.depth[slots], self.rescale[slots] = plan.depth, plan.rescale
        self.guided[slots], self.draws[slots] = plan.guided, plan.draws
        self.learned[slots], self.threshold[slots] = plan.learned, plan.threshold
        self.clipped[slots], self.masked[slots] = plan.clipped, masked

    def identify(self, slots: Slots, seed: int, row: Ints, particle: Ints | None) -> None:
        """Whose noise the rows draw."""
        self.seed[slots], self.row[slots] = np.uint64(seed).astype(np.int64), row
        self.words[slots] = 0 if particle is None else STREAMS_PER_PARTICLE * particle

    def clear(self, slots: Slots) -> Ints:
        """Forget the slots' rows; the first lines of those that had any."""
        used = self.first[slots]
        self.first[slots], self.line[slots], self.end[slots] = -1, 0, 0
        return used[used >= 0]

    def cursor(self, slots: Slots) -> Ints:
        """Lines done."""
        return np.asarray(self.line[slots] - self.first[slots], np.int64)


class Cohort:
    """``where`` selects the rows: a slice (then state is updated in place) where slots are neighbours."""

    def __init__(self, slots: Slots, columns: Columns) -> None:
        self.slots = slots
        self.rows = len(slots)
        self.where = _neighbours(slots)
        self.depth = int(columns.depth[slots].max(initial=0))
        self.overwrites = self.depth == 0 and isinstance(self.where, slice)  # the last x0 in its place
        self.lines: Floats32 = np.empty((0, 0, 0, 1), np.float32)  # coefficients [lines, COLUMNS, rows, 1]
        self.step = 0  # into ``lines``
        self.learned = bool(columns.learned[slots].any())
        self.clipped = bool(columns.clipped[slots].any())
        self.guided: NDArray[np.bool_] = columns.guided[slots]
        self.twice = np.flatnonzero(self.guided)
        self.twin = _twins(self.guided, self.rows) if len(self.twice) else None
        self.rescale: Floats32 = columns.rescale[slots]
        self.threshold: Floats32 = columns.threshold[slots]
        self.bounded = np.flatnonzero(self.threshold)  # rows of dynamic thresholding
        self.rescaled = bool(len(self.twice)) and bool(self.rescale.any())
        self.drawing = np.flatnonzero(columns.draws[slots])
        self.masked = np.flatnonzero(columns.masked[slots])


def _neighbours(slots: Slots) -> slice | Slots:
    if len(slots) and slots[-1] - slots[0] + 1 == len(slots) and bool((np.diff(slots) == 1).all()):
        return slice(int(slots[0]), int(slots[-1]) + 1)
    return slots


def _twins(guided: NDArray[np.bool_], rows: int) -> Ints:
    """For each row, the network row of its unconditional twin; its own where it has none."""
    return np.where(guided, rows - 1 + np.cumsum(guided), np.arange(rows))
