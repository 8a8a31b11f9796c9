"""Slotted rows: they own a slot of the network's key/value cache; prefill chunks alternate with decoding."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from serving.engine.lane import Keys, Lane, Tick
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

    def drop(self, task: int) -> None:
        """Forget the task's rows and free its slots."""
        self._residents.release(task)

    def tick(self, keys: Keys) -> Tick:
        """One prefill chunk of one row, or one decode run over up to ``max_rows`` rows."""
        tick = Tick(np.empty(0, np.int64), np.empty(0, np.int64), capacity=self.max_rows)
        if tick.admitted(self._residents):
            return tick
        pending = self.table.pending_prefill()
        decoding = np.setdiff1d(np.flatnonzero(self._residents.alive), pending, assume_unique=True)
        # Alternating keeps a long prefix from stalling the rows that already decode.
        if len(pending) and (not self._prefilled_last or not len(decoding)):
            self._prefill(pending, keys, tick)
        elif len(decoding):
            self._decode(self._window(decoding, keys), tick)
        return tick

    def _prefill(self, pending: Slots, keys: Keys, tick: Tick) -> None:
        self._prefilled_last = True
        owner = self._residents.owner
        slot = int(pending[np.argmin(keys(owner[pending]))])
        tick.tasks, tick.rows, tick.network_rows = owner[[slot]], np.ones(1, np.int64), 1
        try:
            self.table.prefill(slot)
        except Exception as error:
            tick.failed.append((int(owner[slot]), error))

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
        tick.nonfinite += np.unique(self._residents.owner[slots[bad]]).tolist()
        tick.stepped.append((self._residents, slots[~bad]))
        final, complete = self._residents.settle(slots[~bad])
        if len(final):
            tick.final.append((self._residents, final))
        tick.complete += [(task, partial(self._residents.take, task)) for task in complete]
