"""What a request asks of the device, and how long that takes by the measured times of network runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from serving.engine.lane import Lane
from serving.families.request import Request
from serving.families.rows import Family

MOST_ROWS = 1 << 53  # nobody waits for more; keeps the ledger's integers in range


@dataclass(frozen=True)
class Work:
    """Network rows by component, and how many runs wait for one another."""

    rows: Mapping[str, int]
    depth: int

    @classmethod
    def of(cls, family: Family, request: Request) -> Work:
        """What the family says of a request; a family without ``depth`` runs once."""
        depth = getattr(family, "depth", None)
        return cls(family.network_rows(request), 1 if depth is None else depth(request))

    @property
    def total_rows(self) -> int:
        """Of all components, capped."""
        return min(sum(self.rows.values()), MOST_ROWS)

    def alone_s(self, lanes: Mapping[str, Lane]) -> float:
        """Predicted seconds on an idle engine: runs * base + rows * per_row."""
        total = 0.0
        for lane, rows, runs in self._runs(lanes):
            base, per_row = lane.step_time.coefficients()
            total += runs * base + rows * per_row
        return total

    def best_s(self, lanes: Mapping[str, Lane]) -> float:
        """The same by the best times ever measured."""
        return sum(
            runs * lane.step_time.best_seconds(max(1, rows // runs)) for lane, rows, runs in self._runs(lanes)
        )

    def amortised_s(self, lanes: Mapping[str, Lane]) -> float:
        """Device seconds that it takes from others when every run is full."""
        total = 0.0
        for lane, rows, _ in self._runs(lanes):
            total += rows * lane.step_time.seconds(lane.max_rows) / lane.max_rows
        return total

    def longest(self, lanes: Mapping[str, Lane]) -> Lane:
        """Where it spends most of its time."""
        return max(self._runs(lanes), key=lambda run: run[1] * run[0].step_time.seconds(1))[0]

    def _runs(self, lanes: Mapping[str, Lane]) -> Iterator[tuple[Lane, int, int]]:
        for component, rows in self.rows.items():
            lane = lanes[component]
            yield lane, rows, max(1, min(self.depth, rows), -(-rows // lane.max_rows))
