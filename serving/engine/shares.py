"""Device seconds by share: whose turn it is while shares compete, and what is left of their quotas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.engine.messages import Quota
from serving.errors import ResourceExhausted

LEAST_RETRY_S = 0.05

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass
class _Bucket:
    """What a quota holds; below zero after a request that cost more than there was."""

    quota: Quota
    left_s: float
    now_s: float
    seen_s: float  # of the share's measured seconds, what is taken off already

    @property
    def per_second(self) -> float:
        return self.quota.device_s / self.quota.window_s

    def refill(self, spent_s: float, now_s: float) -> None:
        """Take off what was used, add what came back since."""
        back_s = self.per_second * max(0.0, now_s - self.now_s)
        self.left_s = min(self.quota.device_s, self.left_s + back_s) - (spent_s - self.seen_s)
        self.now_s, self.seen_s = now_s, spent_s


class Shares:
    """Shares by index. ``turn_s``: device seconds per unit of weight, virtual where a share was idle."""

    def __init__(self) -> None:
        self.turn_s: Floats = np.zeros(0)
        self._spent_s: Floats = np.zeros(0)  # measured
        self._weight: Floats = np.zeros(0)
        self._members: Ints = np.zeros(0, np.int64)  # open tasks
        self._rows: Ints = np.zeros(0, np.int64)  # their result rows
        self._index: dict[str, int] = {}
        self._buckets: dict[int, _Bucket] = {}

    def __len__(self) -> int:
        return len(self.turn_s)

    def index(self, share: str) -> int:
        """Of a share that was seen before, or a new one."""
        if share not in self._index:
            self._index[share] = len(self._index)
            self.turn_s, self._spent_s = np.append(self.turn_s, 0.0), np.append(self._spent_s, 0.0)
            self._weight = np.append(self._weight, 1.0)
            self._members, self._rows = np.append(self._members, 0), np.append(self._rows, 0)
        return self._index[share]

    @property
    def busy(self) -> Ints:
        """Shares that have open tasks."""
        return np.flatnonzero(self._members)

    def has_room(self, share: str, weight: float, rows: int, limit_rows: int) -> bool:
        """Whether result rows fit: into the queue, or into the part of it that is the share's by its weight.

        So that no share can keep the others out; together they hold at most a few times the limit.
        """
        if int(self._rows.sum()) + rows <= limit_rows:
            return True
        index = self.index(share)
        others = self.busy[self.busy != index]
        if not len(others):
            return False
        part = weight / (weight + float(self._weight[others].sum()))
        return int(self._rows[index]) + rows <= limit_rows * part

    def rivalry(self, share: str, weight: float, among: Ints) -> float:
        """Device time that other shares of ``among`` (indices) get for each second of this one."""
        others = np.unique(among[among != self.index(share)])
        return float(self._weight[others].sum()) / weight

    def join(self, share: str, weight: float, rows: int) -> int:
        """A task of a share, by its index; one that was idle starts where the least of the others stands."""
        index = self.index(share)
        self._weight[index] = weight
        if not self._members[index] and len(self.busy):
            self.turn_s[index] = max(self.turn_s[index], self.turn_s[self.busy].min())
        self._members[index] += 1
        self._rows[index] += rows
        return index

    def leave(self, index: int, rows: int) -> None:
        """A task has ended."""
        self._members[index] -= 1
        self._rows[index] -= rows

    def charge(self, seconds: Floats) -> None:
        """Device seconds that each share was given."""
        self._spent_s += seconds
        self.turn_s += seconds / self._weight

    def check_quota(self, index: int, quota: Quota, owed_s: float, now_s: float) -> None:
        """Raise ResourceExhausted where nothing is left, counting the work that is admitted: ``owed_s``.

        A request is admitted while anything is left, and charged as measured: a share may so come into debt,
        which has to be refilled before its next request. Over a long time it gets ``device_s / window_s``.
        """
        bucket = self._buckets.get(index)
        if bucket is None:
            spent_s = float(self._spent_s[index])
            bucket = self._buckets[index] = _Bucket(quota, quota.device_s, now_s, spent_s)
        bucket.quota = quota
        bucket.refill(float(self._spent_s[index]), now_s)
        if bucket.left_s <= owed_s:
            missing_s = owed_s - bucket.left_s
            raise ResourceExhausted(
                f"the token has used up its {quota.device_s:g} device seconds per {quota.window_s:g} s; "
                f"{missing_s:.3f} are to be refilled first",
                reason="QUOTA",
                retry_after_s=max(LEAST_RETRY_S, missing_s / bucket.per_second),
            )
