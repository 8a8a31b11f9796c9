"""One line of every row on CPU, in two calls of compiled code: before the network, and after it."""

from __future__ import annotations

import torch

from kernels.table import Place, RowTable
from serving.families.diffusion.arena import CoefficientArena
from serving.families.diffusion.cohort import Columns
from serving.families.diffusion.state import RowState
from serving.families.rows import Advance, Slots, Step, Tensors

TIMES = (torch.float32, torch.int64)  # types of the model time that it writes


KEPT_PLACES = 4096  # as many as a binding keeps views of its rows


class CompiledSteps:
    """Gathers and advances rows whose plans are nothing but coefficients; ``takes`` says which networks."""

    def __init__(self, state: RowState, arena: CoefficientArena, columns: Columns) -> None:
        self._state, self._arena = state, arena
        conditions = {
            name: (column.numpy(), state.null_rows(name)) for name, column in state.conditions.items()
        }
        older = [x0.numpy() for x0 in state.x0]
        self._rows = RowTable(state.x.numpy(), older, columns.entries, conditions)
        self._given = False
        self._places: dict[tuple[int, int], tuple[Tensors, Tensors, Place | None]] = {}  # by identity

    def begin(self, slots: Slots, deviation: float) -> None:
        """The rows' initial noise."""
        self._rows.begin(slots, deviation)

    def bound(self, slots: Slots, inputs: Tensors, outputs: Tensors) -> tuple[Step, Advance] | None:
        """``gather`` and ``advance`` of these rows as calls without arguments, until others are bound.

        None where the network's inputs or outputs have types that it does not write or read.
        """
        place = self._place(inputs, outputs)
        if place is None:
            return None
        self._rows.read_lines(self._arena.host)
        self._find_given()
        return self._rows.bound(slots, place)

    def _place(self, inputs: Tensors, outputs: Tensors) -> Place | None:
        """Found once for the same tensors."""
        known = self._places.get((id(inputs), id(outputs)))
        if known is None:
            if len(self._places) >= KEPT_PLACES:
                self._places.clear()
            known = inputs, outputs, self._placed(inputs, outputs)  # kept, so that no others get their ids
            self._places[id(inputs), id(outputs)] = known
        return known[2]

    def _placed(self, inputs: Tensors, outputs: Tensors) -> Place | None:
        if not self._takes(inputs) or outputs["prediction"].dtype is not torch.float32:
            return None
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        return self._rows.place(arrays, outputs["prediction"].numpy())

    def _takes(self, inputs: Tensors) -> bool:
        return (
            inputs["x"].dtype is torch.float32
            and inputs["t"].dtype in TIMES
            and all(inputs[name].dtype is column.dtype for name, column in self._state.conditions.items())
        )

    def _find_given(self) -> None:
        if self._state.observed is not None and not self._given:
            known, observed = self._state.allocate_given()
            self._rows.read_given(known.numpy(), observed.numpy())
            self._given = True
