"""When requests will be done: their rows, in the order in which they run, over runs of bounded size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.engine.estimate import LEAST_MARGIN

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_ROWS = 1 << 15  # above it rows are taken as a fluid: nobody waits for an answer about so many


@dataclass(frozen=True)
class Pace:
    """Runs hold ``capacity`` rows, and one of ``rows`` rows takes ``base_s + per_row_s * rows``.

    ``margin``: by which sums of them are to be multiplied, since runs vary.
    """

    capacity: int
    base_s: float
    per_row_s: float
    margin: float = LEAST_MARGIN

    def run_s(self, rows: Floats | float) -> Floats | float:
        """Seconds from one run to the next where ``rows`` rows are left; those beyond the capacity wait."""
        return self.base_s + self.per_row_s * np.minimum(rows, self.capacity)


def completion_s(depth: Ints, width: Ints, pace: Pace) -> Floats:
    """Seconds until each task is complete, in the order in which they run.

    A task is ``width`` rows, each of which takes ``depth`` runs. Row k starts when row k - capacity ends
    (list scheduling, Graham 1969): exact where depths ascend, as they do under least remaining work first.
    The runs' size falls as rows end.
    """
    rows = int(width.sum())
    if rows > MOST_ROWS:
        return _fluid(depth, width, pace)
    ends = _ends(np.repeat(depth, width), pace.capacity)
    last = np.maximum.reduceat(ends, np.cumsum(width) - width)
    if rows <= pace.capacity and depth.min() == depth.max():
        return np.asarray(last * pace.run_s(rows), np.float64)
    order = np.sort(ends)
    steps = np.diff(order, prepend=0.0)
    clock = np.cumsum(steps * pace.run_s(rows - np.arange(rows, dtype=np.float64)))
    return np.asarray(clock[np.searchsorted(order, last)], np.float64)


def _ends(depth: Ints, capacity: int) -> Floats:
    """Runs until each row ends."""
    columns = np.zeros(-(-len(depth) // capacity) * capacity)
    columns[: len(depth)] = depth
    return np.cumsum(columns.reshape(-1, capacity), axis=0).reshape(-1)[: len(depth)]


def _fluid(depth: Ints, width: Ints, pace: Pace) -> Floats:
    before = np.cumsum(depth * width) - depth * width
    return np.asarray((before / pace.capacity + depth) * pace.run_s(pace.capacity), np.float64)
