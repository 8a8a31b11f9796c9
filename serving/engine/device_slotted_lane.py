"""A slotted lane on a device that runs by itself: while it decodes, the host reads the step before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from serving.engine.lane import Tick
from serving.engine.messages import ModelKey
from serving.engine.slotted_lane import SlottedLane
from serving.families.rows import RunningTable, Slots

AHEAD = 1  # steps that may be under way beside the one that is read

Taken = Callable[[], tuple[Slots, NDArray[np.bool_]]]


class DeviceSlottedLane(SlottedLane):
    """Prefill, and rows that the host must look at in every step, run as on CPU."""

    def __init__(self, model: ModelKey, name: str, table: RunningTable, max_rows: int) -> None:
        super().__init__(model, name, table, max_rows)
        self._running = table
        self._started: deque[Taken] = deque()

    def prepare(self) -> None:
        """Record the runs, before the first request."""
        self._running.prepare(self.max_rows)

    def _decodable(self, pending: Slots) -> Slots:
        """Not those whose last step is under way."""
        rows = super()._decodable(pending)
        return rows[~self._running.exhausted()[rows]]

    def _rest(self, tick: Tick) -> None:
        """Nothing to start: read what is under way."""
        self._read(tick, 0)

    def _attempt(self, slots: Slots, tick: Tick) -> None:
        if not self._running.stays(slots):
            self._attend(slots, tick)
            return
        try:
            self._started.append(self._running.start(slots))
        except Exception:  # again, read at once, so that the guilty row is found
            self._attend(slots, tick)
        else:
            self._read(tick, AHEAD)

    def _attend(self, slots: Slots, tick: Tick) -> None:
        """An ordinary step of those that still go on when everything before it was read."""
        self._read(tick, 0)
        left = slots[self.table.remaining(slots) > 0]
        if len(left):
            super()._attempt(left, tick)

    def _read(self, tick: Tick, ahead: int) -> None:
        while len(self._started) > ahead:
            slots, bad = self._started.popleft()()
            self._settle(slots, bad, tick)
