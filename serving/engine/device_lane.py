"""A batched lane on a device that runs by itself: while it steps, the host looks at the step before."""

from __future__ import annotations

from collections import deque
from functools import partial

import numpy as np
import torch

from serving.engine.batched_lane import BatchedLane
from serving.engine.device_runs import DeviceRuns, Look
from serving.engine.lane import Keys, Tasks, Tick
from serving.engine.messages import ModelKey
from serving.engine.residents import Residents
from serving.engine.spans import Run, TableSpan
from serving.families.rows import StayingTable
from serving.runtime.capture import fetched
from serving.runtime.network import Binding, Network

AHEAD = 1  # runs that may be under way beside the one that is looked at


class DeviceLane(BatchedLane):
    """Runs of one table's rows go on without the host; calls and mixed runs are read at once, as on CPU."""

    def __init__(self, model: ModelKey, component: str, network: Network) -> None:
        super().__init__(model, component, network)
        self._device = network.options.device
        self._runs: dict[tuple[int, int], tuple[Binding, DeviceRuns]] = {}
        self._looks: deque[Look] = deque()

    def prepare(self) -> None:
        """Record the runs of every table, before the first request."""
        for residents, table in self._tables:
            if isinstance(table, StayingTable):
                self._runs_of(self._network.binding(table.dims), residents).prepare()

    def busy(self) -> bool:
        """Whether any row waits, or a run's end is not told yet."""
        return bool(self._looks) or super().busy()

    def tasks(self) -> Tasks:
        """Also of the rows whose last step is under way."""
        return np.concatenate([super().tasks(), *(look.residents.owner[look.final] for look in self._looks)])

    def drop(self, task: int) -> None:
        """Forget the task's rows; the device may step them once more, for nobody."""
        super().drop(task)
        for look in self._looks:
            look.forget(task)

    def tick(self, keys: Keys) -> Tick:
        """Start a run and look at the one before; where no row waits, look at the last one."""
        if super().busy():
            return super().tick(keys)
        tick = Tick(np.empty(0, np.int64), np.empty(0, np.int64))
        self._look(tick, 0)
        return tick

    def _bind(self, run: Run) -> None:
        """The device has a shorter one."""

    def _attempt(self, run: Run, tick: Tick) -> None:
        span = _staying(run)
        if span is None:
            self._attend(run, tick)
            return
        try:
            flags = self._runs_of(run.binding, span.residents).run(span.slots, run.rows)
        except Exception:  # again, read at once, so that the guilty row is found
            self._attend(run, tick)
        else:
            self._follow(span, flags, tick)

    def _attend(self, run: Run, tick: Tick) -> None:
        """An ordinary run, after everything before it was looked at."""
        self._look(tick, 0)
        for _, runs in self._runs.values():
            runs.forget()
        super()._attempt(run, tick)

    def _follow(self, span: TableSpan, flags: torch.Tensor, tick: Tick) -> None:
        residents, slots = span.residents, span.slots
        owner = residents.owner[slots].copy()
        final, complete = residents.settle(slots)
        self._looks.append(Look(residents, slots, owner, final, complete, *fetched(flags)))
        tick.stepped.append((residents, slots))
        self._look(tick, AHEAD)

    def _look(self, tick: Tick, ahead: int) -> None:
        """Read runs until only ``ahead`` of them are unread."""
        while len(self._looks) > ahead:
            look = self._looks.popleft()
            guilty = look.guilty()
            for task in guilty:
                look.forget(task)
                for later in self._looks:
                    later.forget(task)
            tick.nonfinite += guilty
            kept = look.final[np.isin(look.final, look.slots[look.owner >= 0])]
            if len(kept):
                tick.final.append((look.residents, kept))
            tick.complete += [(task, partial(look.residents.take, task)) for task in look.complete]

    def _runs_of(self, binding: Binding, residents: Residents) -> DeviceRuns:
        key = (id(binding), id(residents))  # both are kept, so that no other can have their places
        if key not in self._runs:
            table = residents.table
            assert isinstance(table, StayingTable)
            self._runs[key] = binding, DeviceRuns(binding, table, self._device)
        return self._runs[key][1]


def _staying(run: Run) -> TableSpan | None:
    """The run's only span, where the device can step it by itself."""
    span = run.spans[0]
    if len(run.spans) > 1 or not isinstance(span, TableSpan):
        return None
    table = span.residents.table
    return span if isinstance(table, StayingTable) and table.stays(span.slots) else None
