"""Slotted rows: they own a slot of the network's key/value cache; prefill chunks alternate with decoding."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from serving.engine.lane import Keys, Lane, Tasks, Tick
from serving.engine.messages import ModelKey
from serving.engine.residents import Residents
from serving.families.rows import Loop, Slots, SlottedTable


class SlottedLane(Lane):
    """One cached network and the table that lives in its slots."""

    def __init__(self, model: ModelKey, name: str, table: SlottedTable, max_rows: int) -> None:
        super().__init__(model, table.component)
        self._name = name
        self.table = table
        self._residents = Residents(table)
        self.max_rows = max_rows
        self._prefilled_last = False

    def add_loop(self, task: int, loop: Loop) -> None:
        """Rows that come to stay; they wait where no slot is free."""
        self._residents.add(task, loop)

    def busy(self) -> bool:
        """Whether any row waits."""
        return self._residents.busy

    def tasks(self) -> Tasks:
        """Of the rows in slots."""
        return self._residents.owner[self._residents.alive]

    def contest(self, keys: Keys | None) -> None:
        """For rows that wait for a slot."""
        self._residents.order = keys

    def drop(self, task: int) -> None:
        """Forget the task's rows and free its slots."""
        self._residents.release(task)

    def tick(self, keys: Keys) -> Tick:
        """One prefill chunk of a row and its neighbours, or one decode run over up to ``max_rows`` rows."""
        tick = Tick(np.empty(0, np.int64), np.empty(0, np.int64), capacity=self.max_rows)
        if tick.admitted(self._residents):
            return tick
        pending = self.table.pending_prefill()
        decoding = self._decodable(pending)
        # Alternating keeps a long prefix from stalling the rows that already decode.
        if len(pending) and (not self._prefilled_last or not len(decoding)):
            self._prefill(pending, keys, tick)
        elif len(decoding):
            self._decode(self._window(decoding, keys), tick)
        else:
            self._rest(tick)
        return tick

    def _decodable(self, pending: Slots) -> Slots:
        """Rows that wait for their next symbol."""
        return np.setdiff1d(np.flatnonzero(self._residents.alive), pending, assume_unique=True)

    def _rest(self, tick: Tick) -> None:
        """No row waits for the network."""

    def _prefill(self, pending: Slots, keys: Keys, tick: Tick) -> None:
        self._prefilled_last = tick.prefill = True
        owner = self._residents.owner
        slots = self.table.neighbours(int(pending[np.argmin(keys(owner[pending]))]))
        tick.tasks, tick.rows = owner[slots], np.ones(len(slots), np.int64)
        tick.network_rows = len(slots)
        self._attempt_prefill(slots, tick)

    def _attempt_prefill(self, slots: Slots, tick: Tick) -> None:
        """Read; where that raises, read the halves, until the guilty row is alone and fails."""
        try:
            self.table.prefill_together(slots)
        except Exception as error:
            if len(slots) == 1:
                tick.failed.append((int(self._residents.owner[slots[0]]), error))
                return
            self._attempt_prefill(slots[: len(slots) // 2], tick)
            self._attempt_prefill(slots[len(slots) // 2 :], tick)

    def _window(self, decoding: Slots, keys: Keys) -> Slots:
        """The rows of one block of ``max_rows`` neighbouring slots, since a run covers a range of slots."""
        blocks = decoding // self.max_rows
        if blocks[0] == blocks[-1]:
            return decoding
        key = keys(self._residents.owner[decoding])
        members = np.bincount(blocks)
        # A fuller block serves more rows in a run; the mean of its keys says how urgent they are.
        mean = np.bincount(blocks, weights=key) / np.maximum(members, 1)
        mean[members == 0] = np.inf
        chosen: Slots = decoding[blocks == int(np.argmin(mean))]
        return chosen

    def _decode(self, slots: Slots, tick: Tick) -> None:
        self._prefilled_last = False
        ones: NDArray[np.int64] = np.ones(len(slots), np.int64)
        tick.tasks, tick.rows = self._residents.owner[slots], ones
        tick.network_rows = len(slots)
        tick.padded_rows = int(slots[-1] - slots[0]) + 1 - len(slots)
        self._attempt(slots, tick)

    def _attempt(self, slots: Slots, tick: Tick) -> None:
        """Decode; where that raises, decode the halves, until the guilty row is alone and fails."""
        try:
            bad = self.table.decode(slots)
        except Exception as error:
            if len(slots) == 1:
                tick.failed.append((int(self._residents.owner[slots[0]]), error))
                return
            self._attempt(slots[: len(slots) // 2], tick)
            self._attempt(slots[len(slots) // 2 :], tick)
            return
        self._settle(slots, bad, tick)

    def _settle(self, slots: Slots, bad: NDArray[np.bool_], tick: Tick) -> None:
        """Tell what a step of these rows did; ``bad`` ones were not finite."""
        tick.nonfinite += np.unique(self._residents.owner[slots[bad]]).tolist()
        tick.stepped.append((self._residents, slots[~bad]))
        final, complete = self._residents.settle(slots[~bad])
        if len(final):
            tick.final.append((self._residents, final))
        tick.complete += [(task, partial(self._residents.take, task)) for task in complete]
