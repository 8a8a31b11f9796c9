"""Runs of the same tasks in a row, entered into the ledger once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass
class Tally:
    """Runs of the same tasks, one after another: by task index, network rows and share of each run."""

    tasks: Ints | None = None
    rows: Ints | None = None
    given: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    share: Floats = field(default_factory=lambda: np.empty(0, np.float64))
    runs: int = 0
    seconds: float = 0.0

    @staticmethod
    def of(tasks: Ints, rows: Ints, size: int) -> Tally:
        """No run yet."""
        weight = np.bincount(tasks, weights=rows, minlength=size)
        return Tally(tasks, rows, weight.astype(np.int64), weight / max(1.0, float(weight.sum())))

    def repeats(self, tasks: Ints, rows: Ints) -> bool:
        """Whether these very arrays are meant."""
        return tasks is self.tasks and rows is self.rows
