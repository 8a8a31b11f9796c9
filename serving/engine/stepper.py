"""Ticks of a lane: one, then the same run again while nothing else happens; and the books of their cost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from serving.engine.lane import Lane, Tasks, Tick
from serving.engine.ledger import Ledger
from serving.engine.model import ServedModel
from serving.engine.recorder import Recorder
from serving.engine.timeline import Timelines
from serving.engine.turns import Turns

REPEAT_S = 0.05  # how long a run may be repeated before everything is looked at again


class Stepper:
    """What a tick decides holds until rows come or go, so it is decided, and booked, once for all repeats."""

    def __init__(
        self,
        ledger: Ledger,
        turns: Turns,
        recorder: Recorder,
        timelines: Timelines,
        clock: Callable[[], float],
    ) -> None:
        self._ledger, self._turns, self._recorder, self._timelines = ledger, turns, recorder, timelines
        self._clock = clock
        self._ticked_s: float | None = None  # when the last run ended, unless it was followed by idleness
        self.tick_began_s: float | None = None

    def rest(self) -> None:
        """The engine has nothing to do: the time until the next run is nobody's."""
        self._ticked_s = None

    def tick(
        self, lane: Lane, model: ServedModel, calm_until_s: float, disturbed: Callable[[], bool]
    ) -> Tick:
        """Run once, and again until then or until ``disturbed``; the last tick, of the same rows as all."""
        begun_s = self.tick_began_s = self._clock()

        def keys(tasks: Tasks) -> NDArray[np.float64]:
            return self._ledger.keys(tasks, begun_s)

        lane.contest(keys if self._ledger.contested else None)
        tick = lane.tick(keys)
        times_s = [begun_s, self._clock()]
        if tick.network_rows:
            until_s = min(calm_until_s, begun_s + REPEAT_S)
            tick = self._repeat(lane, tick, times_s, until_s, disturbed)
        self.tick_began_s = None
        if tick.network_rows:
            self._measure(lane, model, tick, times_s)
        self._ticked_s = now_s = times_s[-1]
        self._turns.charge(lane.model, now_s - begun_s)
        self._ledger.charge(tick.tasks, tick.rows, now_s - begun_s, now_s, len(times_s) - 1)
        return tick

    def _repeat(
        self, lane: Lane, tick: Tick, times_s: list[float], until_s: float, disturbed: Callable[[], bool]
    ) -> Tick:
        now_s = times_s[-1]
        while now_s < until_s and not disturbed() and not tick.eventful:
            self.tick_began_s = now_s
            again = lane.again()
            if again is None:
                break
            tick, now_s = again, self._clock()
            times_s.append(now_s)
        return tick

    def _measure(self, lane: Lane, model: ServedModel, tick: Tick, times_s: list[float]) -> None:
        # From run to run while busy: what happens in between takes time from every step, too.
        before_s = self._ticked_s or times_s[0]
        for now_s in times_s[1:]:
            lane.step_time.observe(tick.network_rows, now_s - before_s)
            before_s = now_s
        self._recorder.ran(model, lane, tick, times_s)
        if self._timelines:
            self._timelines.ran(lane.component, tick, times_s[0], times_s[-1])
