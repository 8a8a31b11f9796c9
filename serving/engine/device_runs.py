"""Runs that a device repeats by itself: network and step as one launch, looked at one tick late."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from serving.engine.residents import FREE, Residents
from serving.families.rows import Slots, Standing, StayingTable
from serving.runtime.capture import Work, captured
from serving.runtime.network import Binding


@dataclass
class Look:
    """What a run left behind, to be read when the next one is on its way.

    ``owner`` [rows] tasks at the time of the run, FREE where they have left since; ``flags`` [rows] where the
    network's output was not finite, valid after ``wait``.
    """

    residents: Residents
    slots: Slots
    owner: NDArray[np.int64]
    final: Slots
    complete: list[int]
    flags: torch.Tensor
    wait: Callable[[], object]

    def forget(self, task: int) -> None:
        """A task has left: nothing here is about it any more."""
        self.owner[self.owner == task] = FREE
        self.complete = [one for one in self.complete if one != task]

    def guilty(self) -> list[int]:
        """Tasks with rows that are not finite; waits for the run."""
        self.wait()
        spoiled = self.owner[self.flags.numpy()[: len(self.owner)] != 0]
        return [task for task in np.unique(spoiled).tolist() if task != FREE]


@dataclass(frozen=True)
class Stage:
    """One size of run: buffers with a standing over them, and its work as single launches."""

    standing: Standing
    present: Work
    tick: Work


class DeviceRuns:
    """Runs of one table's rows in one binding, in sizes of powers of two; padding rows are inert."""

    def __init__(self, binding: Binding, table: StayingTable, device: torch.device) -> None:
        self._binding, self._table, self._device = binding, table, device
        self._stages: dict[int, Stage] = {}
        self._seated: tuple[int, Slots] | None = None

    def prepare(self) -> None:
        """Record every size, nobody seated."""
        size = 1
        while size < self._binding.capacity:
            self._stage(size)
            size *= 2
        self._stage(self._binding.capacity)

    def forget(self) -> None:
        """Something else used the buffers: whoever comes next is seated anew."""
        self._seated = None

    def run(self, slots: Slots, rows: int) -> torch.Tensor:
        """One step of these rows, ``rows`` in the network; the flags on the device. Waits for nothing."""
        size = min(1 << (rows - 1).bit_length(), self._binding.capacity)
        stage = self._stage(size)
        if self._seated is None or self._seated[0] != size or self._seated[1] is not slots:
            stage.standing.seat(slots)
            stage.present()
            self._seated = size, slots
        stage.tick()
        self._table.count(slots)
        return stage.standing.flags

    def _stage(self, size: int) -> Stage:
        found = self._stages.get(size)
        if found is None or found.standing.stale:
            self.forget()
            found = self._stages[size] = self._recorded(size)
        return found

    def _recorded(self, size: int) -> Stage:
        part = self._binding.part(0, size)
        standing = self._table.stand(part.inputs, part.outputs)

        def tick() -> None:
            self._binding.run(size)
            standing.step()

        whole = captured(tick, self._device) if self._binding.capturable else tick
        return Stage(standing, captured(standing.present, self._device), whole)
