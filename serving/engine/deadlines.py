"""Deadlines of open requests: which have passed, and which cannot be met any more."""

from __future__ import annotations

import heapq
import math
from collections.abc import Container, Iterator, Sequence

from serving.engine.lane import Lane
from serving.engine.ledger import Ledger
from serving.engine.triage import hopeless

PASSED = "the deadline passed while it ran or waited"
HOPELESS = "it waited so long that it could not have been done by its deadline any more"
TRIAGE_EVERY_S = 0.02


class Deadlines:
    """Times on the engine's clock, with the numbers of the tickets that end by them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._heap: list[tuple[float, int]] = []
        self._numbers: dict[int, int] = {}  # by ledger index, of whoever had it last
        self._triage_s = 0.0

    @property
    def soonest_s(self) -> float:
        """The first of them; infinite without any."""
        return self._heap[0][0] if self._heap else math.inf

    def add(self, deadline_s: float, number: int, task: int) -> None:
        """A request that ends by then, and its index in the ledger."""
        heapq.heappush(self._heap, (deadline_s, number))
        self._numbers[task] = number

    def missed(self, now_s: float, lanes: Sequence[Lane]) -> Iterator[tuple[int, str]]:
        """(number, why) of those whose time has come or cannot suffice; some may have ended long ago."""
        while self._heap and self._heap[0][0] <= now_s:
            yield heapq.heappop(self._heap)[1], PASSED
        if self._heap and now_s >= self._triage_s:
            self._triage_s = now_s + TRIAGE_EVERY_S
            for task in hopeless(self._ledger, lanes, now_s):
                if task in self._numbers:  # else it was admitted, and has not come in yet
                    yield self._numbers[task], HOPELESS

    def tidy(self, open_numbers: Container[int], count: int) -> None:
        """Forget those that have ended, once they are the most of it; ``count`` are open."""
        if len(self._heap) > 2 * count + 64:
            self._heap = [entry for entry in self._heap if entry[1] in open_numbers]
            heapq.heapify(self._heap)
