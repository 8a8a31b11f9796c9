"""Events of streaming requests: progress, previews, rows as soon as they are final, heartbeats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from serving.engine.lane import Tick
from serving.engine.ledger import Ledger
from serving.engine.messages import Advanced, Previewed, RowFinal
from serving.engine.residents import Residents
from serving.engine.task import Task
from serving.families.result import Result
from serving.families.rows import Slots

PROGRESS_EVERY_S = 0.1
HEARTBEAT_S = 5.0  # well below the promised 10 s


class Streams:
    """Only streaming tasks cost anything here."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._tasks: dict[int, Task] = {}

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def add(self, task: Task) -> None:
        """Begin to tell a task's caller."""
        self._tasks[task.index] = task
        self._progress(task, self._clock(), None)

    def remove(self, task: Task) -> None:
        """The task has ended."""
        self._tasks.pop(task.index, None)

    def heartbeat(self, now_s: float) -> None:
        """Progress for whoever has heard nothing for a while, queued or not."""
        for task in self._tasks.values():
            if now_s - task.told_s >= HEARTBEAT_S:
                self._progress(task, now_s, None)

    def partial(self, task: Task, partial: Result | None) -> None:
        """A running estimate."""
        if task.index in self._tasks:
            self._progress(task, self._clock(), partial)

    def after(self, tick: Tick) -> list[tuple[int, Exception]]:
        """Tell what a tick changed; the tasks whose rows could not be shown, and why."""
        if not self._tasks:
            return []
        failed: list[tuple[int, Exception]] = []
        for task in list(self._tasks.values()):
            try:
                for residents, slots in tick.stepped:
                    self._previews(task, residents, slots)
                for residents, slots in tick.final:
                    self._finals(task, residents, slots)
            except Exception as error:
                failed.append((task.index, error))
        now_s = self._clock()
        for index in np.unique(tick.tasks).tolist():
            told = self._tasks.get(index)
            if told is not None and now_s - told.told_s >= PROGRESS_EVERY_S:
                self._progress(told, now_s, None)
        return failed

    def _progress(self, task: Task, now_s: float, partial: Result | None) -> None:
        task.told_s = now_s
        index = task.index
        done, total = int(self._ledger.done[index]), int(self._ledger.total[index])
        left_s = float(self._ledger.remaining_s(np.array([index]))[0])
        task.ticket.post(Advanced(min(done, total), total, left_s, done == 0, partial))

    def _previews(self, task: Task, residents: Residents, slots: Slots) -> None:
        every = task.options.preview_every_steps
        if not every or task.loop is None or task.loop.streamed is None:
            return
        slots = slots[residents.owner[slots] == task.index]
        rows = residents.row[slots]
        steps = task.loop.steps[rows] - residents.table.remaining(slots)
        due = (steps % every == 0) & residents.alive[slots]
        if not due.any():
            return
        data, lengths = task.loop.streamed.data(rows[due], residents.table.preview(slots[due]))
        for place, (row, step) in enumerate(zip(rows[due].tolist(), steps[due].tolist(), strict=True)):
            length = None if lengths is None else int(lengths[place])
            task.ticket.post(Previewed(row, step, data[place], length))

    def _finals(self, task: Task, residents: Residents, slots: Slots) -> None:
        slots = slots[residents.owner[slots] == task.index]
        if not len(slots) or task.loop is None or task.loop.streamed is None:
            return
        rows = residents.row[slots]
        data, lengths = task.loop.streamed.data(rows, residents.table.result(slots))
        for place, row in enumerate(rows.tolist()):
            length = None if lengths is None else int(lengths[place])
            task.ticket.post(RowFinal(row, data[place], length))
