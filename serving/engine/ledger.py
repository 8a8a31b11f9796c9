"""What every admitted request still costs, one array per quantity, so that ordering is vectorised."""

from __future__ import annotations

import math
import threading
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.engine.messages import Quota, Usage
from serving.engine.shares import Shares
from serving.engine.tally import Tally

AGING = 0.1  # seconds of remaining work that one second of waiting is worth
SHARE = 1e3  # a share that had one device second less goes before any difference in work
PRIORITY_S = 1e9  # a higher priority goes before everything

EMPTY = {"lane": -1, "depth": 1, "deadline": np.inf}  # of an index that is free, where it is not 0

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Place(NamedTuple):
    """The lane that a task waits for, its runs that wait for one another, and its deadline on the clock.

    ``held_bytes``: memory of its rows until it ends.
    """

    lane: int
    depth: int
    deadline: float
    held_bytes: int = 0


NOWHERE = Place(0, 1, math.inf)


@dataclass(frozen=True)
class Waiting:
    """Tasks of one lane in the order of their keys: ``width`` rows, each with ``depth`` runs left."""

    key: Floats
    depth: Ints
    width: Ints
    due_s: Floats  # time left to the deadline
    others: float  # device time that other lanes and shares get for each second of this one's
    others_s: float  # their work


class Ledger:
    """Tasks by index; indices are reused. ``seconds`` is the predicted work of the whole request."""

    def __init__(self, capacity: int = 256) -> None:
        self.total = np.zeros(capacity, np.int64)  # network rows, an upper bound
        self._done = np.zeros(capacity, np.int64)
        self.seconds = np.zeros(capacity, np.float64)
        self._spent = np.zeros(capacity, np.float64)  # device seconds
        self.arrived = np.zeros(capacity, np.float64)
        self.started = np.full(capacity, np.nan)
        self.priority = np.zeros(capacity, np.int64)
        self.rows = np.zeros(capacity, np.int64)  # result rows
        self.share = np.zeros(capacity, np.int64)  # index into ``_shares``
        self.lane = np.full(capacity, -1, np.int64)  # where most of its work waits; -1: free
        self.depth = np.ones(capacity, np.int64)  # runs that wait for one another
        self.deadline = np.full(capacity, np.inf)
        self.held = np.zeros(capacity, np.int64)  # bytes
        self._shares = Shares()
        self._priorities: Counter[int] = Counter()  # open tasks by priority
        self._lanes: set[int] = set()  # that tasks have ever waited in
        self._due = 0  # open tasks that have a deadline
        self._tally = Tally()
        self.open_rows = self.held_bytes = 0  # result rows of all open tasks, and memory of all their rows
        self.lock = threading.RLock()  # callers' threads open (and grow the arrays), the worker closes
        self._free = list(range(capacity - 1, -1, -1))

    @property
    def done(self) -> Ints:
        """Network rows by task."""
        self._book()
        return self._done

    @property
    def spent(self) -> Floats:
        """Device seconds by task."""
        self._book()
        return self._spent

    @property
    def open_tasks(self) -> int:
        """Indices in use."""
        return len(self.total) - len(self._free)

    @property
    def soonest_deadline_s(self) -> float:
        """The first deadline of all, on the clock; infinite without any."""
        return float(self.deadline.min()) if self._due else math.inf

    @property
    def longest_depth(self) -> int:
        """The most runs that any task began with."""
        return int(self.depth.max())

    @property
    def contested(self) -> bool:
        """Whether open tasks differ in share or priority, so that it matters whose turn it is."""
        return len(self._shares.busy) > 1 or len(self._priorities) > 1

    def check_quota(self, share: str, quota: Quota, now_s: float) -> None:
        """Raise ResourceExhausted where the share has used up its quota, with what it has open."""
        with self.lock:
            self._book()
            index = self._shares.index(share)
            mine = np.flatnonzero((self.share == index) & (self.lane >= 0))
            self._shares.check_quota(index, quota, float(self.remaining_s(mine).sum()), now_s)

    def open(
        self,
        total: int,
        rows: int,
        seconds: float,
        now_s: float,
        priority: int,
        share: str = "",
        place: Place = NOWHERE,
        share_weight: float = 1.0,
    ) -> int:
        """A new task's index."""
        with self.lock:
            self._shares.index(share)
            if len(self._shares) > 1:  # where it starts depends on where the others stand
                self._book()
            index = self._shares.join(share, share_weight, rows)
            self._priorities[priority] += 1
            if not self._free:
                self._grow()
            task = self._free.pop()
            self.rows[task], self.total[task], self.seconds[task] = rows, max(1, total), seconds
            self._done[task], self._spent[task], self.share[task] = 0, 0.0, index
            self.arrived[task], self.started[task], self.priority[task] = now_s, np.nan, priority
            self.lane[task], self.depth[task], self.deadline[task], self.held[task] = place
            self._lanes.add(place.lane)
            self.open_rows += rows
            self.held_bytes += place.held_bytes
            self._due += place.deadline < math.inf
        return task

    def close(self, task: int) -> None:
        """The index may be reused."""
        with self.lock:
            self._book()
            self._tally = Tally()
            self.open_rows -= int(self.rows[task])
            self.held_bytes -= int(self.held[task])
            self._due -= bool(self.deadline[task] < math.inf)
            self._shares.leave(int(self.share[task]), int(self.rows[task]))
            self._forget_priority(int(self.priority[task]))
            self.total[task] = self._done[task] = self.rows[task] = 0
            self.seconds[task], self.started[task], self.lane[task] = 0.0, np.nan, -1
            self.deadline[task], self.depth[task], self.held[task] = np.inf, 1, 0
            self._free.append(task)

    def _forget_priority(self, priority: int) -> None:
        self._priorities[priority] -= 1
        if not self._priorities[priority]:
            del self._priorities[priority]

    def charge(self, tasks: Ints, rows: Ints, seconds: float, now_s: float, runs: int = 1) -> None:
        """Share runs among their tasks by network rows; a task may stand in ``tasks`` more than once.

        Whoever passes the same arrays again (not equal ones) means the same tasks, still open.
        """
        with self.lock:
            if not self._tally.repeats(tasks, rows):
                self._book()
                self._tally = Tally(tasks, rows)
                self.started[tasks] = np.fmin(self.started[tasks], now_s - seconds)
            self._tally.runs += runs
            self._tally.seconds += seconds

    def _book(self) -> None:
        """Enter the runs since the tasks last changed; for most ticks this is put off."""
        with self.lock:
            tally = self._tally
            if tally.runs:
                spent = tally.spent_s()
                np.add.at(self._done, tally.tasks, tally.runs * tally.rows)
                np.add.at(self._spent, tally.tasks, spent)
                if len(self._shares) == 1:
                    self._shares.charge(np.array([tally.seconds]))
                else:
                    np.add.at(by_share := np.zeros(len(self._shares)), self.share[tally.tasks], spent)
                    self._shares.charge(by_share)
                tally.runs, tally.seconds = 0, 0.0

    def usage(self, task: int, now_s: float) -> Usage:
        """What a task cost so far; one that never ran has queued until now."""
        self._book()
        started_s = float(self.started[task])
        ran_s = now_s if math.isnan(started_s) else min(started_s, now_s)
        queued_s = max(0.0, ran_s - float(self.arrived[task]))
        return Usage(int(self._done[task]), float(self._spent[task]), queued_s)

    def remaining_s(self, tasks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Predicted seconds of work left."""
        left = 1.0 - self.done[tasks] / np.maximum(self.total[tasks], 1)
        return self.seconds[tasks] * np.clip(left, 0.0, 1.0)

    def keys(self, tasks: NDArray[np.int64], now_s: float) -> NDArray[np.float64]:
        """Of the share that had least, the least remaining work first, aged by waiting; priorities first."""
        waited = now_s - self.arrived[tasks]
        order = self.remaining_s(tasks) - AGING * waited - PRIORITY_S * self.priority[tasks]
        return order if len(self._shares) == 1 else order + SHARE * self._shares.turn_s[self.share[tasks]]

    def claim(self, tasks: NDArray[np.int64]) -> tuple[float, float]:
        """How urgent the most urgent of some tasks are, lower first: by priority, then by share."""
        if not len(tasks):  # only an end to tell
            return -np.inf, 0.0
        self._book()
        priority = self.priority[tasks]
        first = tasks[priority == priority.max()]
        return -float(priority.max()), float(self._shares.turn_s[self.share[first]].min())

    def has_room(self, rows: int, limit_rows: int, share: str = "", share_weight: float = 1.0) -> bool:
        """Whether the queue takes so many rows more of a share."""
        if self.open_rows + rows <= limit_rows:
            return True
        with self.lock:
            return self._shares.has_room(share, share_weight, rows, limit_rows)

    def waiting_in(
        self, lane: int, now_s: float, priority: int = 0, share: str = "", share_weight: float = 1.0
    ) -> Waiting:
        """Tasks that would run before or after one of this share in its lane, in order, and their rivals.

        Those are its own share's, and whatever has a higher priority; the rivals get device time beside them.
        """
        with self.lock:
            tasks = np.flatnonzero((self.lane >= 0) & (self.priority >= priority))
            lower = np.flatnonzero((self.lane == lane) & (self.priority < priority))
            tasks = np.concatenate([tasks, lower[self.share[lower] == self._shares.index(share)]])
            left = np.clip(1.0 - self.done[tasks] / np.maximum(self.total[tasks], 1), 0.0, 1.0)
            seconds = self.seconds[tasks] * left
            key = seconds - AGING * (now_s - self.arrived[tasks]) - PRIORITY_S * self.priority[tasks]
            depth = np.maximum(np.ceil(self.depth[tasks] * left), 1.0).astype(np.int64)
            width = np.maximum(-(-self.total[tasks] // self.depth[tasks]), 1)
            due_s, lanes = self.deadline[tasks] - now_s, self.lane[tasks]
            own = self.share[tasks] == self._shares.index(share)
            line = (lanes == lane) & (own | (self.priority[tasks] > priority))
            rivalry = self._shares.rivalry(share, share_weight, self.share[tasks[~line]])
        mine = np.flatnonzero(line)
        order = mine[np.argsort(key[mine], kind="stable")]
        others = (1.0 + rivalry) * (1.0 + len(set(lanes[own].tolist()) - {lane})) - 1.0
        others_s = float(seconds.sum() - seconds[mine].sum()) if others else 0.0
        return Waiting(key[order], depth[order], width[order], due_s[order], others, others_s)

    @staticmethod
    def priority_s(priority: int) -> float:
        """What a priority is worth beside seconds of work."""
        return PRIORITY_S * priority

    def queued_and_active_rows(self) -> tuple[int, int]:
        """Result rows whose request has not begun to run, and those whose request has."""
        with self.lock:
            waiting = int(self.rows[np.isnan(self.started)].sum())
            return waiting, self.open_rows - waiting

    def beside(self, lane: int, depth: int, seconds: float) -> tuple[float, float]:
        """What others do before or beside a request of so many seconds, whose runs in a lane are ``depth``.

        Seconds: of each task, at most as much. Network rows: of the lane's tasks in those runs, if all fit.
        """
        with self.lock:
            tasks = (self.lane >= 0).nonzero()[0]
            runs, total = self.depth[tasks], self.total[tasks]
            # Runs left, by books that may be some milliseconds old; estimates may have been exceeded.
            left = np.maximum(runs - self._done[tasks] * (runs / total), 0.0)
            seconds_s = np.minimum(self.seconds[tasks] / runs * left, seconds)
            rows = total / runs * np.minimum(left, depth)
            if len(self._lanes) > 1:
                rows = rows[self.lane[tasks] == lane]
            return float(np.add.reduce(seconds_s)), float(np.add.reduce(rows))

    def backlog_s(self) -> float:
        """Work left of all tasks."""
        with self.lock:
            return float(self.remaining_s(np.flatnonzero(self.lane >= 0)).sum())

    def _grow(self) -> None:
        old = len(self.total)
        columns = [(name, array) for name, array in vars(self).items() if isinstance(array, np.ndarray)]
        for name, array in columns:
            setattr(self, name, np.concatenate([array, np.full_like(array, EMPTY.get(name, 0))]))
        self._free.extend(range(2 * old - 1, old - 1, -1))
