"""What a request asks of the device, and how long that takes by the measured times of network runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from serving.engine.lane import Lane
from serving.families.request import Request
from serving.families.rows import Family

MOST_ROWS = 1 << 53  # nobody waits for more; keeps the ledger's integers in range


class Price(NamedTuple):
    """Predicted seconds: alone, alone at the best ever measured, and taken from others where runs are full.

    ``longest`` is the lane in which it spends most of its time.
    """

    alone_s: float
    best_s: float
    amortised_s: float
    longest: Lane


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

    def price(self, lanes: Mapping[str, Lane]) -> Price:
        """What it is predicted to take; it is asked for at every admission, so lanes are looked at once."""
        alone_s = best_s = amortised_s = most = 0.0
        longest = None
        for component, rows in self.rows.items():
            lane = lanes[component]
            runs = max(1, min(self.depth, rows), -(-rows // lane.max_rows))
            base_s, per_row_s = lane.step_time.coefficients()
            alone_s += runs * base_s + rows * per_row_s
            best_s += runs * lane.step_time.best_seconds(max(1, rows // runs))
            amortised_s += rows * (base_s + per_row_s * lane.max_rows) / lane.max_rows
            single_s = rows * (base_s + per_row_s)
            if longest is None or single_s > most:
                longest, most = lane, single_s
        assert longest is not None
        return Price(alone_s, best_s, amortised_s, longest)
