"""How long each row of a table waited between two of its steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serving.families.rows import Slots

Floats = NDArray[np.float64]


class Pace:
    """When each slot's row last stepped. Rows that step together tick after tick cost one subtraction."""

    def __init__(self, capacity: int) -> None:
        self._last_s = np.full(capacity, np.nan)  # NaN: the row has not stepped yet
        self._together: Slots | None = None  # stepped last, at ``_when_s``, which is not in ``_last_s`` yet
        self._when_s = 0.0

    def begin(self, slots: Slots) -> None:
        """New rows came into these slots."""
        self._settle()
        self._last_s[slots] = np.nan

    def step(self, slots: Slots, now_s: float) -> float | Floats:
        """Seconds since the rows' last step: one number for all of them, or [rows] with NaN for first steps.

        Whoever passes the same array again (not an equal one) means the same rows.
        """
        if slots is self._together:
            gap_s, self._when_s = now_s - self._when_s, now_s
            return gap_s
        self._settle()
        self._together, self._when_s = slots, now_s
        gaps_s: Floats = now_s - self._last_s[slots]
        return gaps_s

    def _settle(self) -> None:
        if self._together is not None:
            self._last_s[self._together] = self._when_s
            self._together = None
