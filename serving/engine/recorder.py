"""Collects what happened between two reports: a tick appends to lists, a report makes arrays of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from serving.engine.lane import Lane, Tick
from serving.engine.ledger import Ledger
from serving.engine.messages import Usage
from serving.engine.model import ServedModel
from serving.engine.observer import Ended, Floats, Ints, Observer, Report, Runs
from serving.engine.task import Task

MOST = 4096  # runs and requests in one report, so that lists stay bounded


@dataclass
class _Record:
    """Runs of one lane and phase since the last report."""

    capacity: int = 0
    seconds: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    padded_rows: int = 0
    steps: int = 0
    gaps: list[tuple[float | Floats, int]] = field(default_factory=list)

    def told(self, model: ServedModel, lane: Lane, prefill: bool) -> Runs:
        """As arrays."""
        gaps_s, gap_rows = _flat(self.gaps)
        return Runs(
            model=model.key.name,
            family=model.family.name,
            component=lane.component,
            phase="prefill" if prefill else "step",
            capacity=self.capacity,
            seconds=np.array(self.seconds),
            rows=np.array(self.rows, np.int64),
            padded_rows=self.padded_rows,
            steps=self.steps,
            gaps_s=gaps_s,
            gap_rows=gap_rows,
        )


class Recorder:
    """Lives on the engine's thread."""

    def __init__(self, observer: Observer, ledger: Ledger) -> None:
        self._observer = observer
        self._ledger = ledger
        self._records: dict[tuple[Lane, bool], tuple[ServedModel, _Record]] = {}
        self._ended: list[Ended] = []
        self._entries = 0

    @property
    def pending(self) -> bool:
        """Whether something happened since the last report."""
        return self._entries > 0

    @property
    def full(self) -> bool:
        """Whether it is time for a report, whatever the clock says."""
        return self._entries >= MOST

    def ran(self, model: ServedModel, lane: Lane, tick: Tick, times_s: Sequence[float]) -> None:
        """Runs of the same rows, one after another: when they began, and when each of them ended."""
        known = self._records.get((lane, tick.prefill))
        if known is None:
            known = self._records[lane, tick.prefill] = (model, _Record())
        record, count = known[1], len(times_s) - 1
        record.capacity = tick.capacity
        record.seconds += [after - before for before, after in itertools.pairwise(times_s)]
        record.rows += [tick.network_rows] * count
        record.padded_rows += tick.padded_rows * count
        for residents, slots in tick.stepped:
            record.steps += len(slots) * count
            record.gaps += [(residents.pace.step(slots, now_s), len(slots)) for now_s in times_s[1:]]
        self._entries += count

    def ended(self, task: Task, reason: str, now_s: float) -> Usage:
        """A request that leaves the engine, by ``reason`` or (empty) answered; what it cost."""
        usage = self._ledger.usage(task.index, now_s)
        name, share, latency_s = task.model.key.name, task.options.share, now_s - task.arrived_s
        self._ended.append(
            Ended(name, task.request.operation, share, reason, usage, latency_s, task.predicted_s)
        )
        self._entries += 1
        return usage

    def report(self) -> None:
        """Tell the observer, and begin anew."""
        records, self._records = self._records, {}
        ended, self._ended = self._ended, []
        self._entries = 0
        runs = tuple(record.told(model, *key) for key, (model, record) in records.items())
        queued, active = self._ledger.queued_and_active_rows()
        self._observer.report(Report(runs, tuple(ended), queued, active, self._ledger.backlog_s()))


def _flat(gaps: list[tuple[float | Floats, int]]) -> tuple[Floats, Ints]:
    """(seconds, rows) of gaps that are one number for all rows of a tick, or one per row; NaN left out."""
    each = [gap for gap, _ in gaps if isinstance(gap, np.ndarray)]
    one = [(gap, rows) for gap, rows in gaps if not isinstance(gap, np.ndarray)]
    single = np.concatenate(each) if each else np.empty(0)
    single = single[~np.isnan(single)]
    shared_s, shared_rows = np.array([gap for gap, _ in one]), np.array([rows for _, rows in one], np.int64)
    return np.concatenate([single, shared_s]), np.concatenate([np.ones(len(single), np.int64), shared_rows])
