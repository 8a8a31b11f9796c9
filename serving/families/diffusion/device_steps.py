"""Rows that stand in a network's buffers on the device and are stepped there: one kernel after the network.

Who stands where is one small tensor, sent when it changes. From then on a step needs nothing from the host:
the kernel (kernels/rows.py) reads coefficients by each row's own line, which it advances, draws noise from
counters, and writes the network's next inputs. So network and step can be captured in a CUDA graph.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.rows import DEPTH, FIELDS, FIRST, LINE, MASKED, NEXT, ROW, SEED, SLOT, TWIN, WORDS, denoise_rows
from serving.families.diffusion.arena import CoefficientArena
from serving.families.diffusion.cohort import Cohort, Columns
from serving.families.diffusion.plan import SCALE, TIME
from serving.families.diffusion.state import RowState
from serving.families.rows import Slots, Tensors
from serving.runtime.capture import sent

# Per network row, after the positions of the kernel: whose state and line it shows, and whether as its twin.
SHOWN_SLOT, SHOWN_LINE, SHOWN_TWIN = range(FIELDS, FIELDS + 3)
SEATS = FIELDS + 3


class DeviceSteps:
    """Buffers of ``rows`` network rows: those of width 1 or first of two in front, then the second ones."""

    def __init__(
        self, state: RowState, arena: CoefficientArena, columns: Columns, inputs: Tensors, outputs: Tensors
    ) -> None:
        self._state, self._arena, self._columns = state, arena, columns
        self._inputs, self._output = inputs, outputs["prediction"].flatten(1)
        self._x = inputs["x"].flatten(1)
        self._lines, self._given = arena.lines, state.allocate_given()
        self._rows = len(self._x)
        self._seats = torch.zeros((SEATS, self._rows), dtype=torch.int64, device=state.device)
        self._seats[SLOT] = -1
        self.flags = torch.zeros(self._rows, dtype=torch.int32, device=state.device)

    @property
    def stale(self) -> bool:
        """Whether the coefficients have moved."""
        return self._lines is not self._arena.lines

    def seat(self, slots: Slots) -> None:
        """These rows, in this order; the rest of the network rows is inert."""
        self._seats.copy_(sent(torch.from_numpy(self._places(slots)), self._state.device))
        self.flags.zero_()

    def _places(self, slots: Slots) -> NDArray[np.int64]:
        columns, cohort, count = self._columns, Cohort(slots, self._columns), len(slots)
        seats = np.zeros((SEATS, self._rows), np.int64)
        seats[SLOT], seats[TWIN] = -1, np.arange(self._rows)
        own = seats[:, :count]  # a view: what is written here is theirs
        own[SLOT], own[LINE], own[NEXT] = slots, columns.line[slots], columns.line[slots]
        own[FIRST], own[DEPTH] = columns.first[slots], columns.depth[slots]
        own[SEED], own[ROW], own[WORDS] = columns.seed[slots], columns.row[slots], columns.words[slots]
        own[MASKED] = columns.masked[slots]
        if cohort.twin is not None:
            own[TWIN] = cohort.twin
        shown = np.concatenate([slots, slots[cohort.twice]])
        seats[SHOWN_SLOT, : len(shown)], seats[SHOWN_LINE, : len(shown)] = shown, columns.line[shown]
        seats[SHOWN_TWIN, count : len(shown)] = 1
        return seats

    def present(self) -> None:
        """State, model times and conditions; twins with null conditions."""
        slot, line = self._seats[SHOWN_SLOT], self._lines.index_select(0, self._seats[SHOWN_LINE])
        self._x.copy_(self._state.x.index_select(0, slot) * line[:, SCALE : SCALE + 1])
        self._inputs["t"].copy_(line[:, TIME])
        for name, column in self._state.conditions.items():
            self._inputs[name].copy_(self._shown(name, column, slot))

    def _shown(self, name: str, column: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        given, null = column.index_select(0, slot), self._state.null.get(name)
        if null is None:
            return given
        absent = null if len(null) == 1 else null.index_select(0, slot)
        twin = self._seats[SHOWN_TWIN].view(-1, *[1] * (given.ndim - 1)) != 0
        return torch.where(twin, absent, given)

    def step(self) -> None:
        """One line of every seated row."""
        denoise_rows(
            self._state.x,
            self._state.history,
            self._lines,
            self._seats[:FIELDS],
            self._output,
            self._x,
            self._inputs["t"],
            self.flags,
            *self._given,
        )
