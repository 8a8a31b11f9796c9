"""Running estimate of a network run's duration by its number of rows: seconds = base + per_row * rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

DECAY = 0.98  # of the evidence, per observation: about the last fifty runs count
BLOCK_RUNS = 32  # whose sum is held against what was expected of them
BLOCKS = 8  # how many of them count
LEAST_MARGIN, MOST_MARGIN = 1.05, 1.5
NINE_OF_TEN = 1.6  # mean absolute deviations above the mean: of a normal law, 90 % lie below


@dataclass
class Block:
    """Some runs in a row, and what they were expected to take by what was known before the first."""

    base_s: float = 0.0
    per_row_s: float = 0.0
    runs: int = 0
    seconds: float = 0.0
    expected_s: float = 0.0


class StepTime:
    """Exponentially decayed least squares, with the best rate ever seen as the optimistic bound."""

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self._block = Block()
        self._deviation = 0.0
        self._best: dict[int, float] = {}  # power-of-two row bucket -> least seconds
        self._fitted: tuple[float, float] | None = None  # until the next observation

    def observe(self, rows: int, seconds: float) -> None:
        """One measured run."""
        self._judge(rows, seconds)
        self._fitted = None
        self._n = self._n * DECAY + 1.0
        self._x = self._x * DECAY + rows
        self._y = self._y * DECAY + seconds
        self._xx = self._xx * DECAY + rows * rows
        self._xy = self._xy * DECAY + rows * seconds
        bucket = _bucket(rows)
        # The best creeps up, so that a machine that became slower is believed in the end.
        self._best[bucket] = min(self._best.get(bucket, math.inf) * 1.001, seconds)

    @property
    def measured(self) -> bool:
        """Whether anything was observed."""
        return self._n > 0

    def seconds(self, rows: int) -> float:
        """Predicted duration of one run of ``rows`` rows."""
        base, per_row = self.coefficients()
        return base + per_row * rows

    def coefficients(self) -> tuple[float, float]:
        """(base, per_row) seconds, both at least 0."""
        fitted = self._fitted  # threads that admit see a whole one
        if fitted is None:
            fitted = self._fitted = self._fit()
        return fitted

    def _fit(self) -> tuple[float, float]:
        if self._n == 0:
            return 0.0, 0.0
        mean_x, mean_y = self._x / self._n, self._y / self._n
        variance = self._xx / self._n - mean_x * mean_x
        if variance < 1e-9:
            return 0.0, mean_y / max(mean_x, 1.0)
        slope = (self._xy / self._n - mean_x * mean_y) / variance
        slope = min(max(slope, 0.0), mean_y / mean_x)
        return mean_y - slope * mean_x, slope

    @property
    def margin(self) -> float:
        """What predictions are to be multiplied by, so that nine of ten hold: as they were off lately."""
        return min(max(1.0 + NINE_OF_TEN * self._deviation, LEAST_MARGIN), MOST_MARGIN)

    def _judge(self, rows: int, seconds: float) -> None:
        block = self._block
        block.runs, block.seconds = block.runs + 1, block.seconds + seconds
        block.expected_s += block.base_s + block.per_row_s * rows
        if block.runs >= BLOCK_RUNS:
            if block.expected_s > 0:
                off = abs(block.seconds / block.expected_s - 1.0)
                self._deviation += (min(off, 1.0) - self._deviation) / BLOCKS
            self._block = Block(*self.coefficients())

    def best_seconds(self, rows: int) -> float:
        """The least that ``rows`` rows were ever seen to take in one run; 0 where nothing is known."""
        least = _bucket(rows)
        return min((seconds for bucket, seconds in self._best.items() if bucket >= least), default=0.0)


def _bucket(rows: int) -> int:
    return 1 << max(0, rows - 1).bit_length()
