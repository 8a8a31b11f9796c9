"""Runs of the same tasks in a row, entered into the ledger once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


NOBODY: Ints = np.empty(0, np.int64)


@dataclass(slots=True)
class Tally:
    """Runs of the same tasks, one after another: in each, ``rows`` network rows of each of ``tasks``."""

    tasks: Ints = field(default_factory=lambda: NOBODY)
    rows: Ints = field(default_factory=lambda: NOBODY)
    runs: int = 0
    seconds: float = 0.0

    def repeats(self, tasks: Ints, rows: Ints) -> bool:
        """Whether these very arrays are meant."""
        return tasks is self.tasks and rows is self.rows

    def spent_s(self) -> Floats:
        """Each entry's part of the seconds, by network rows."""
        return np.asarray(self.rows * (self.seconds / max(1, int(np.add.reduce(self.rows)))), np.float64)
