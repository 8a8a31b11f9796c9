"""One line of every row on CPU: the operations of ``kernels.denoise`` in NumPy, in place.

Each is one IEEE operation per element in the same order as the operator's reference, so the bits are the
same; what no row of a cohort uses is left out. NumPy starts an operation in a third of torch's time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.philox import STREAM_RENOISE, STREAM_STEP
from serving.families.diffusion.ahead import NoiseAhead
from serving.families.diffusion.arena import CoefficientArena
from serving.families.diffusion.cohort import Cohort, Columns
from serving.families.diffusion.guidance import guided
from serving.families.diffusion.learned import noise_factor
from serving.families.diffusion.plan import (
    C1,
    HIGH,
    KNOWN,
    LOW,
    P_X,
    Q_OUT,
    RENOISE,
    SCALE,
    SPREAD,
    TIME,
    A,
    B,
    D,
    G,
)
from serving.families.diffusion.state import RowState
from serving.families.diffusion.threshold import thresholded
from serving.families.rows import Slots, Tensors

Floats32 = NDArray[np.float32]
LINES_AHEAD = 16


class Views:
    """The same tensors as NumPy arrays [rows, ...]; found anew only where others are given."""

    def __init__(self) -> None:
        self._of: Tensors = {}
        self._found: dict[str, NDArray[Any]] = {}

    def of(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        """Arrays by name; ``x`` and ``prediction`` flattened to [rows, elements]."""
        if tensors is not self._of:
            self._found = {name: _flat(name, tensor.numpy()) for name, tensor in tensors.items()}
            self._of = tensors
        return self._found


def _flat(name: str, array: NDArray[Any]) -> NDArray[Any]:
    return array.reshape(len(array), -1) if name in ("x", "prediction") else array


class HostSteps:
    """Gathers and advances cohorts; scratch buffers grow to the largest one."""

    def __init__(self, state: RowState, arena: CoefficientArena, columns: Columns) -> None:
        self._state, self._arena, self._columns = state, arena, columns
        self._x = state.x.numpy()
        self._x0 = [older.numpy() for older in state.x0]
        self._conditions = {name: column.numpy() for name, column in state.conditions.items()}
        self._noise = NoiseAhead(columns, state.elements, STREAM_STEP)
        self._renoise: NoiseAhead | None = None
        self._scratch = np.empty((4, 0, state.elements), np.float32)
        self._inputs, self._outputs = Views(), Views()

    def forget(self, slots: Slots) -> None:
        """The slots' rows leave, or are new."""
        for ahead in (self._noise, self._renoise):
            if ahead is not None:
                ahead.forget(slots)

    def gather(self, cohort: Cohort, inputs: Tensors) -> None:
        """State, model times and conditions; rows of width 2 once more with null conditions."""
        rows, line = cohort.rows, self._lines(cohort)
        arrays = self._inputs.of(inputs)
        x, t = arrays["x"], arrays["t"]
        np.multiply(self._x[cohort.where], line[SCALE], out=x[:rows], casting="same_kind")
        t[:rows] = line[TIME, :, 0]
        for name, column in self._conditions.items():
            arrays[name][:rows] = column[cohort.where]
        if len(cohort.twice):
            x[rows:], t[rows:] = x[cohort.twice], t[cohort.twice]
            for name, null in self._state.null.items():
                arrays[name][rows:] = null

    def advance(self, cohort: Cohort, outputs: Tensors) -> None:
        """One line of every row."""
        line = self._lines(cohort)
        x, where = self._x[cohort.where], cohort.where
        x0, term, noise = self._buffers(cohort.rows)[:3]
        if cohort.overwrites:
            x0 = self._x0[0][where]
        np.multiply(x, line[P_X], out=x0)
        x0 += np.multiply(self._prediction(cohort, outputs, line[G]), line[Q_OUT], out=term)
        if len(cohort.bounded):
            self._bound(cohort, line, x0)
        if cohort.clipped:
            np.maximum(x0, line[LOW], out=x0)
            np.minimum(x0, line[HIGH], out=x0)
        x *= line[A]
        x += np.multiply(x0, line[B], out=term)
        x += np.float32(0.0)  # -0 becomes +0, as in the operator
        for j in range(cohort.depth):
            x += np.multiply(self._x0[j][where], line[C1 + j], out=term)
        if len(cohort.drawing):
            self._noise.take(cohort, cohort.drawing, noise)
            if cohort.learned:
                noise *= self._amount(cohort, outputs, line[SPREAD])
            x += np.multiply(noise, line[D], out=noise)
        if len(cohort.masked):
            self._put_given(cohort, line, x)
        self._keep(cohort, x, x0)

    def _lines(self, cohort: Cohort) -> Floats32:
        """Coefficients [COLUMNS, rows, 1] of the next line; read many lines at once where a cohort lasts."""
        if cohort.step == len(cohort.lines):
            count = LINES_AHEAD if cohort.step else 1
            line, end = self._columns.line[cohort.slots], self._columns.end[cohort.slots]
            index = np.minimum(line + np.arange(count)[:, None], end - 1)
            cohort.lines = self._arena.host.take(index, axis=0).transpose(0, 2, 1)[..., None]
            cohort.step = 0
        found: Floats32 = cohort.lines[cohort.step]
        return found

    def _buffers(self, rows: int) -> Floats32:
        if self._scratch.shape[1] < rows:
            self._scratch = np.empty((4, rows, self._state.elements), np.float32)
        return self._scratch[:, :rows]

    def _prediction(self, cohort: Cohort, outputs: Tensors, scale: Floats32) -> NDArray[np.floating]:
        output = self._outputs.of(outputs)["prediction"][:, : self._state.elements]
        if cohort.twin is None:
            return output
        if cohort.rescaled:
            factors = torch.from_numpy(np.ascontiguousarray(scale))
            twin = torch.from_numpy(cohort.twin)
            return guided(torch.from_numpy(output), twin, factors, cohort.rescale).numpy()
        conditional, unconditional = output[: cohort.rows].astype(np.float32), output[cohort.twin]
        conditional -= unconditional
        conditional *= scale
        conditional += unconditional
        return conditional

    def _bound(self, cohort: Cohort, line: Floats32, x0: Floats32) -> None:
        rows = cohort.bounded
        x0[rows] = thresholded(x0[rows], cohort.threshold[rows], line[LOW][rows], line[HIGH][rows])

    def _amount(self, cohort: Cohort, outputs: Tensors, spread: Floats32) -> Floats32:
        n = self._state.elements
        said = self._outputs.of(outputs)["prediction"][: cohort.rows, n : 2 * n]
        return noise_factor(torch.from_numpy(said), torch.from_numpy(spread.copy())).numpy()

    def _put_given(self, cohort: Cohort, line: Floats32, x: Floats32) -> None:
        known, observed = (tensor.numpy() for tensor in self._state.allocate_given())
        if self._renoise is None:
            self._renoise = NoiseAhead(self._columns, self._state.elements, STREAM_RENOISE)
        term, noise = self._buffers(cohort.rows)[1], self._buffers(cohort.rows)[3]
        self._renoise.take(cohort, cohort.masked, noise)
        np.multiply(known[cohort.where], line[KNOWN], out=term)
        term += np.float32(0.0)
        term += np.multiply(noise, line[RENOISE], out=noise)
        active = (line[KNOWN] != 0.0) | (line[RENOISE] != 0.0)
        np.copyto(x, term, where=observed[cohort.where] & active)

    def _keep(self, cohort: Cohort, x: Floats32, x0: Floats32) -> None:
        where = cohort.where
        for j in range(cohort.depth - 1, 0, -1):
            self._x0[j][where] = self._x0[j - 1][where]
        if not cohort.overwrites:
            self._x0[0][where] = x0
        if not isinstance(where, slice):
            self._x[where] = x
        self._columns.line[where] += 1
        cohort.step += 1
