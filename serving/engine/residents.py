"""Which task's row sits in which slot of a table, and which loops wait for room."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from serving.engine.pace import Pace
from serving.families.rows import Loop, Slots, Table, Tensors

FREE = -1

Order = Callable[[NDArray[np.int64]], NDArray[np.float64]]  # tasks -> keys, lower first
Taken = tuple[int, Callable[[], Tensors]]  # a task, and how to take its loop's result


@dataclass
class Resident:
    """A loop whose rows are in the table."""

    loop: Loop
    slots: Slots
    left: int  # rows that are not final


class Residents:
    """Slots of one table. ``owner[slot]`` is a task index or FREE; ``row[slot]`` its row in the loop."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.owner = np.full(table.capacity, FREE, np.int64)
        self.row = np.zeros(table.capacity, np.int64)
        self.alive = np.zeros(table.capacity, np.bool_)  # resident and not final
        self.active = 0  # how many are alive
        self._free_slots = list(range(table.capacity))  # a heap: the lowest goes first
        self.version = 0  # counts changes of ``alive`` and ``owner``
        self.pace = Pace(table.capacity)
        self.by_task: dict[int, Resident] = {}
        self._waiting: deque[tuple[int, Loop]] = deque()
        self.order: Order | None = None  # of those that wait, where shares or priorities compete
        self._idle: list[int] = []  # tasks whose loop had no step to make
        self._refused: list[tuple[int, Exception]] = []  # tasks whose loop the table did not take

    @property
    def busy(self) -> bool:
        """Whether there is a row to step, or an end to tell."""
        return self.active > 0 or bool(self._idle or self._refused)

    def add(self, task: int, loop: Loop) -> None:
        """Take the loop in now, or as soon as there is room; ValueError where there never will be."""
        if loop.rows > self.table.capacity:
            raise ValueError(
                f"{loop.rows} rows at once, but table {loop.table!r} holds {self.table.capacity}"
            )
        self._waiting.append((task, loop))
        self.admit_waiting()

    def admit_waiting(self) -> None:
        """Admit waiting loops in order while they fit, into the lowest free slots."""
        if self.order is not None and len(self._waiting) > 1:
            keys = self.order(np.array([task for task, _ in self._waiting], np.int64))
            self._waiting = deque(self._waiting[place] for place in np.argsort(keys, kind="stable").tolist())
        while self._waiting:
            task, loop = self._waiting[0]
            if len(self._free_slots) < loop.rows:
                return
            self._waiting.popleft()
            free = np.array([heapq.heappop(self._free_slots) for _ in range(loop.rows)], np.int64)
            try:
                self.table.admit(free, loop)
            except Exception as error:
                self._refused.append((task, error))
                self.table.release(free)
                self._give_back(free)
                continue
            self.owner[free], self.row[free] = task, np.arange(loop.rows)
            alive = self.table.remaining(free) > 0
            self.alive[free] = alive
            left = int(np.count_nonzero(alive))
            self.pace.begin(free)
            self.active += left
            self.version += 1
            self.by_task[task] = Resident(loop, free, left)
            if left == 0:
                self._idle.append(task)

    def ends(self) -> tuple[list[Taken], list[tuple[int, Exception]]]:
        """What ended at admission since the last call: complete loops, and loops that were not taken."""
        complete: list[Taken] = [(task, partial(self.take, task)) for task in self._idle]
        refused, self._idle, self._refused = self._refused, [], []
        return complete, refused

    def waiting_rows(self) -> int:
        """Rows of loops that have no slots yet."""
        return sum(loop.rows for _, loop in self._waiting)

    def settle(self, slots: Slots) -> tuple[Slots, list[int]]:
        """After a step of ``slots``: those that became final, and the tasks whose loop is complete."""
        final = slots[self.table.remaining(slots) == 0]
        if not len(final):
            return final, []
        self.alive[final] = False
        self.active -= len(final)
        self.version += 1
        complete = []
        for task in self.owner[final].tolist():
            resident = self.by_task[task]
            resident.left -= 1
            if resident.left == 0:
                complete.append(task)
        return final, complete

    def take(self, task: int) -> Tensors:
        """The result of a complete loop; its slots are free."""
        resident = self.by_task[task]
        result = self.table.result(resident.slots)
        self.release(task)
        return result

    def release(self, task: int) -> None:
        """Forget a task, waiting or resident; harmless where it is unknown."""
        if self._waiting:
            self._waiting = deque(entry for entry in self._waiting if entry[0] != task)
        if self._idle:
            self._idle = [entry for entry in self._idle if entry != task]
        resident = self.by_task.pop(task, None)
        if resident is not None:
            self._free(resident)
        self.admit_waiting()

    def _free(self, resident: Resident) -> None:
        slots = resident.slots
        if resident.left:
            self.active -= resident.left
            self.alive[slots] = False
        self.owner[slots] = FREE
        self._give_back(slots)
        self.version += 1
        self.table.release(slots)

    def _give_back(self, slots: Slots) -> None:
        for slot in slots.tolist():
            heapq.heappush(self._free_slots, slot)
