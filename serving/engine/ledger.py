"""What every admitted request still costs, one array per quantity, so that ordering is vectorised."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.engine.messages import Usage

AGING = 0.1  # seconds of remaining work that one second of waiting is worth
SHARE = 1e3  # a share that had one device second less goes before any difference in work
PRIORITY_S = 1e9  # a higher priority goes before everything

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass
class Tally:
    """Runs of the same tasks, one after another: by task index, network rows and share of each run."""

    tasks: Ints | None = None
    rows: Ints | None = None
    given: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    share: Floats = field(default_factory=lambda: np.empty(0, np.float64))
    runs: int = 0
    seconds: float = 0.0

    @staticmethod
    def of(tasks: Ints, rows: Ints, size: int) -> Tally:
        """No run yet."""
        weight = np.bincount(tasks, weights=rows, minlength=size)
        return Tally(tasks, rows, weight.astype(np.int64), weight / max(1.0, float(weight.sum())))

    def repeats(self, tasks: Ints, rows: Ints) -> bool:
        """Whether these very arrays are meant."""
        return tasks is self.tasks and rows is self.rows


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
        self.share = np.zeros(capacity, np.int64)  # index into ``_had_s``
        self._shares: dict[str, int] = {}
        self._had_s = np.zeros(0, np.float64)  # device seconds by share, virtual where it was idle
        self._tally = Tally()
        self._lock = threading.RLock()  # callers' threads open (and grow the arrays), the worker closes
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
    def open_rows(self) -> int:
        """Result rows of all open tasks."""
        return int(self.rows.sum())

    @property
    def open_tasks(self) -> int:
        """Indices in use."""
        return len(self.total) - len(self._free)

    def open(
        self, total: int, rows: int, seconds: float, now_s: float, priority: int, share: str = ""
    ) -> int:
        """A new task's index."""
        with self._lock:
            index = self._join(share)
            if not self._free:
                self._grow()
            task = self._free.pop()
            self.rows[task], self.total[task], self.seconds[task] = rows, total, seconds
            self.done[task], self.spent[task], self.share[task] = 0, 0.0, index
            self.arrived[task], self.started[task], self.priority[task] = now_s, np.nan, priority
        return task

    def close(self, task: int) -> None:
        """The index may be reused."""
        with self._lock:
            self._book()
            self._tally = Tally()
            self.total[task] = self.done[task] = self.rows[task] = 0
            self.seconds[task] = 0.0
            self.started[task] = np.nan
            self._free.append(task)

    def charge(self, tasks: NDArray[np.int64], rows: NDArray[np.int64], seconds: float, now_s: float) -> None:
        """Share one run among its tasks by network rows; a task may stand in ``tasks`` more than once.

        Whoever passes the same arrays again (not equal ones) means the same tasks, still open.
        """
        with self._lock:
            if not self._tally.repeats(tasks, rows):
                self._book()
                self._tally = Tally.of(tasks, rows, len(self.total))
                self.started[tasks] = np.fmin(self.started[tasks], now_s - seconds)
            self._tally.runs += 1
            self._tally.seconds += seconds

    def _book(self) -> None:
        """Enter the runs since the tasks last changed; for most ticks this is put off."""
        with self._lock:
            tally = self._tally
            if tally.runs:
                size = len(tally.given)  # the arrays may have grown since
                self._done[:size] += tally.runs * tally.given
                spent = tally.seconds * tally.share
                self._spent[:size] += spent
                self._had_s += np.bincount(self.share[:size], weights=spent, minlength=len(self._had_s))
                tally.runs, tally.seconds = 0, 0.0

    def usage(self, task: int) -> Usage:
        """What a task cost so far; one that never ran only queued."""
        started = self.started[task]
        queued_s = 0.0 if np.isnan(started) else max(0.0, float(started - self.arrived[task]))
        return Usage(int(self.done[task]), float(self.spent[task]), queued_s)

    def remaining_s(self, tasks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Predicted seconds of work left."""
        left = 1.0 - self.done[tasks] / np.maximum(self.total[tasks], 1)
        return self.seconds[tasks] * np.clip(left, 0.0, 1.0)

    def keys(self, tasks: NDArray[np.int64], now_s: float) -> NDArray[np.float64]:
        """Of the share that had least, the least remaining work first, aged by waiting; priorities first."""
        waited = now_s - self.arrived[tasks]
        order = self.remaining_s(tasks) - AGING * waited - PRIORITY_S * self.priority[tasks]
        return order if len(self._had_s) == 1 else order + SHARE * self._had_s[self.share[tasks]]

    def _join(self, share: str) -> int:
        """A share's index; one that was idle starts where the least of the others stands."""
        if share not in self._shares:
            self._shares[share] = len(self._shares)
            self._had_s = np.append(self._had_s, 0.0)
        index = self._shares[share]
        used = self.share[self.rows > 0]
        if len(used) and index not in used:
            self._book()
            self._had_s[index] = max(self._had_s[index], self._had_s[used].min())
        return index

    def queued_and_active_rows(self) -> tuple[int, int]:
        """Result rows whose request has not begun to run, and those whose request has."""
        with self._lock:
            waiting = int(self.rows[np.isnan(self.started)].sum())
            return waiting, self.open_rows - waiting

    def backlog_s(self) -> float:
        """Work left of all tasks."""
        return float(self.all_remaining_s().sum())

    def all_remaining_s(self) -> NDArray[np.float64]:
        """Predicted seconds of work left, of every index; 0 where it is free."""
        with self._lock:
            return self.remaining_s(np.arange(len(self.total)))

    def _grow(self) -> None:
        old = len(self.total)
        for name in (
            "total",
            "_done",
            "seconds",
            "_spent",
            "arrived",
            "started",
            "priority",
            "rows",
            "share",
        ):
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros_like(array)]))
        self._free.extend(range(2 * old - 1, old - 1, -1))
