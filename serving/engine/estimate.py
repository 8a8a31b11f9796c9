"""Running estimate of a network run's duration by its number of rows: seconds = base + per_row * rows."""

from __future__ import annotations

import math

DECAY = 0.98  # of the evidence, per observation: about the last fifty runs count


class StepTime:
    """Exponentially decayed least squares, with the best rate ever seen as the optimistic bound."""

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self._best: dict[int, float] = {}  # power-of-two row bucket -> least seconds

    def observe(self, rows: int, seconds: float) -> None:
        """One measured run."""
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
        if self._n == 0:
            return 0.0, 0.0
        mean_x, mean_y = self._x / self._n, self._y / self._n
        variance = self._xx / self._n - mean_x * mean_x
        if variance < 1e-9:
            return 0.0, mean_y / max(mean_x, 1.0)
        slope = (self._xy / self._n - mean_x * mean_y) / variance
        slope = min(max(slope, 0.0), mean_y / mean_x)
        return mean_y - slope * mean_x, slope

    def best_seconds(self, rows: int) -> float:
        """The least that ``rows`` rows were ever seen to take in one run; 0 where nothing is known."""
        known = [seconds for bucket, seconds in self._best.items() if bucket >= _bucket(rows)]
        return min(known, default=0.0)


def _bucket(rows: int) -> int:
    return 1 << max(0, rows - 1).bit_length()
