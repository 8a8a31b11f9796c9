"""Coefficients of all plans in use, in one tensor, read by all rows in one gather."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from serving.families.diffusion.plan import COLUMNS, Plan
from serving.runtime.capture import sent

_FIRST_LINES = {"cpu": 1024, "cuda": 1 << 16}  # graphs that were captured know where the lines are


class CoefficientArena:
    """``lines`` float32 [size, COLUMNS]; equal plans share one range, freed with its last row.

    ``host`` is their copy in NumPy (on CPU the same memory).
    """

    def __init__(self, device: torch.device) -> None:
        self.host = np.zeros((_FIRST_LINES.get(device.type, 1024), COLUMNS), np.float32)
        self.lines = torch.from_numpy(self.host).to(device)
        self._apart = device.type != "cpu"
        self._ranges: dict[bytes, tuple[int, int]] = {}  # key -> (first line, lines)
        self._uses: dict[int, int] = {}  # first line -> rows
        self._keys: dict[int, bytes] = {}

    def place(self, plan: Plan, rows: int) -> int:
        """The first line of the plan, now used by ``rows`` more rows."""
        known = self._ranges.get(plan.key)
        first = self._write(plan) if known is None else known[0]
        self._uses[first] = self._uses.get(first, 0) + rows
        return first

    def release(self, firsts: NDArray[np.int64]) -> None:
        """One row less for each entry."""
        for first in firsts.tolist():
            self._uses[first] -= 1
            if self._uses[first] == 0:
                del self._uses[first], self._ranges[self._keys.pop(first)]

    def _write(self, plan: Plan) -> int:
        first = self._gap(len(plan))
        if first + len(plan) > len(self.lines):
            grown = np.zeros((2 * (first + len(plan)), COLUMNS), np.float32)
            grown[: len(self.host)] = self.host
            self.host, self.lines = grown, torch.from_numpy(grown).to(self.lines.device)
        self.host[first : first + len(plan)] = plan.coef
        if self._apart:
            self.lines[first : first + len(plan)] = sent(torch.from_numpy(plan.coef), self.lines.device)
        self._ranges[plan.key], self._keys[first] = (first, len(plan)), plan.key
        return first

    def _gap(self, lines: int) -> int:
        """The first range of that many free lines."""
        end = 0
        for first, length in sorted(self._ranges.values()):
            if first - end >= lines:
                return end
            end = first + length
        return end
