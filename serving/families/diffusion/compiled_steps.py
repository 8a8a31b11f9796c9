"""One line of every row on CPU, in two calls of compiled code: before the network, and after it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.table import Columns as Pointers
from kernels.table import RowTable
from serving.families.diffusion.arena import CoefficientArena
from serving.families.diffusion.cohort import Columns
from serving.families.diffusion.state import RowState
from serving.families.rows import Slots, Step, Tensors

TIMES = (torch.float32, torch.int64)  # types of the model time that it writes


class Views:
    """The same tensors as NumPy arrays; found anew only where others are given."""

    def __init__(self) -> None:
        self._of: Tensors = {}
        self._found: dict[str, NDArray[Any]] = {}

    def of(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        """Arrays by name."""
        if tensors is not self._of:
            self._found = {name: tensor.numpy() for name, tensor in tensors.items()}
            self._of = tensors
        return self._found


class CompiledSteps:
    """Gathers and advances rows whose plans are nothing but coefficients; ``takes`` says which networks."""

    def __init__(self, state: RowState, arena: CoefficientArena, columns: Columns) -> None:
        self._state, self._arena = state, arena
        names = ("first", "line", "depth", "seed", "row", "words", "guided", "masked")
        pointers = Pointers(**{name: getattr(columns, name) for name in names})
        conditions = {
            name: (column.numpy(), state.null_rows(name)) for name, column in state.conditions.items()
        }
        self._rows = RowTable(state.x.numpy(), [older.numpy() for older in state.x0], pointers, conditions)
        self._given = False
        self._inputs, self._outputs = Views(), Views()

    def takes(self, inputs: Tensors) -> bool:
        """Whether the network's inputs have types that it writes."""
        return (
            inputs["x"].dtype is torch.float32
            and inputs["t"].dtype in TIMES
            and all(inputs[name].dtype is column.dtype for name, column in self._state.conditions.items())
        )

    def begin(self, slots: Slots, deviation: float) -> None:
        """The rows' initial noise."""
        self._rows.begin(slots, deviation)

    def bound(self, slots: Slots, inputs: Tensors, outputs: Tensors) -> tuple[Step, Step]:
        """``gather`` and ``advance`` of these rows as calls without arguments, until rows come or go."""
        self._rows.read_lines(self._arena.host)
        self._find_given()
        return self._rows.bound(slots, self._inputs.of(inputs), self._outputs.of(outputs)["prediction"])

    def gather(self, slots: Slots, inputs: Tensors) -> None:
        """State, model times and conditions; guided rows once more with null conditions."""
        self._rows.read_lines(self._arena.host)
        self._rows.gather(slots, self._inputs.of(inputs))

    def advance(self, slots: Slots, outputs: Tensors) -> None:
        """One line of every row."""
        self._find_given()
        self._rows.advance(slots, np.asarray(self._outputs.of(outputs)["prediction"]))

    def _find_given(self) -> None:
        if self._state.observed is not None and not self._given:
            known, observed = self._state.allocate_given()
            self._rows.read_given(known.numpy(), observed.numpy())
            self._given = True
