"""One line of every row by torch operators, on any device: gathers, one fused update, scatters."""

from __future__ import annotations

import numpy as np
import torch

from kernels.denoise import denoise_step
from kernels.philox import STREAM_STEP, STREAMS_PER_PARTICLE, philox_normal
from serving.families.diffusion.arena import CoefficientArena
from serving.families.diffusion.cohort import Cohort, Columns
from serving.families.diffusion.guidance import guided
from serving.families.diffusion.learned import noise_factor
from serving.families.diffusion.plan import HIGH, LOW, P_X, Q_OUT, SCALE, SPREAD, TIME, A, E, G
from serving.families.diffusion.state import RowState
from serving.families.diffusion.threshold import thresholded
from serving.families.rows import Slots, Tensors
from serving.runtime.capture import sent


class TensorSteps:
    """Gathers and advances rows of any plan; the update draws its noise itself, from counters."""

    def __init__(self, state: RowState, arena: CoefficientArena, columns: Columns) -> None:
        self._state, self._arena, self._columns = state, arena, columns
        self._device = state.device
        self._last: Cohort | None = None

    def forget(self) -> None:
        """Rows have come or gone: what was found about the last slots may not hold for them again."""
        self._last = None

    def _together(self, slots: Slots) -> Cohort:
        if self._last is None or self._last.slots is not slots:
            self._last = Cohort(slots, self._columns)
        return self._last

    def gather(self, slots: Slots, inputs: Tensors) -> None:
        """State, model times and conditions; rows of width 2 once more with null conditions."""
        cohort = self._together(slots)
        rows, index, line = cohort.rows, self._to(cohort.slots), self._lines(cohort)
        x, t = inputs["x"].view(len(inputs["x"]), -1), inputs["t"]
        x[:rows].copy_(self._state.x.index_select(0, index) * line[:, SCALE : SCALE + 1])
        t[:rows].copy_(line[:, TIME])
        for name, column in self._state.conditions.items():
            inputs[name][:rows].copy_(column.index_select(0, index))
        if len(cohort.twice):
            again = self._to(cohort.twice)
            x[rows:].copy_(x[:rows].index_select(0, again))
            t[rows:].copy_(t[:rows].index_select(0, again))
            for name in self._state.conditions:
                inputs[name][rows:].copy_(self._unconditional(name, cohort, inputs[name]))

    def _unconditional(self, name: str, cohort: Cohort, given: torch.Tensor) -> torch.Tensor:
        """A condition of the second network rows: its null value, or what was given where it has none."""
        null = self._state.null.get(name)
        if null is None:
            return given.index_select(0, self._to(cohort.twice))
        return null if len(null) == 1 else null.index_select(0, self._to(cohort.slots[cohort.twice]))

    def advance(self, slots: Slots, outputs: Tensors) -> None:
        """One line of every row."""
        cohort = self._together(slots)
        index, line = self._to(cohort.slots), self._lines(cohort)
        output = outputs["prediction"]
        output = output.view(len(output), -1)[:, : self._state.elements]
        twin = None if cohort.twin is None else self._to(cohort.twin)
        if twin is not None and cohort.rescaled:
            output, twin = guided(output, twin, line[:, G : G + 1], cohort.rescale), None
        state = self._state.x.index_select(0, index)
        if len(cohort.bounded):
            state, output = self._bounded(cohort, state, output, line, twin)
            line, twin = _given_x0(line), None
        x, x0 = denoise_step(
            state, output, line[:, : E + 1],
            unconditional_row=twin, history=self._history(cohort.depth, index),
            noise=self._amounts(cohort, outputs, line), direct=cohort.direct,
            **self._counters(cohort), **self._given(cohort, index),
        )  # fmt: skip
        self._keep(cohort, index, x, x0)

    def _bounded(
        self,
        cohort: Cohort,
        x: torch.Tensor,
        output: torch.Tensor,
        line: torch.Tensor,
        twin: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(a x + e m, estimates of x0 after dynamic thresholding) [rows, n]; the update does the rest."""
        prediction = output[: cohort.rows].float()
        if twin is not None:
            unconditional = output.index_select(0, twin)
            prediction = unconditional + line[:, G : G + 1] * (prediction - unconditional)
        rows, limit = cohort.bounded, self._state.threshold_limit
        x0 = (line[:, P_X : P_X + 1] * x + line[:, Q_OUT : Q_OUT + 1] * prediction).cpu().numpy()
        low, high = (line[:, column : column + 1].cpu().numpy()[rows] for column in (LOW, HIGH))
        x0[rows] = thresholded(x0[rows], cohort.threshold[rows], low, high, limit)
        moved = line[:, A : A + 1] * x + line[:, E : E + 1] * prediction
        return moved, torch.from_numpy(x0).to(self._device)

    def _to(self, values: np.ndarray) -> torch.Tensor:
        return sent(torch.from_numpy(values), self._device)

    def _lines(self, cohort: Cohort) -> torch.Tensor:
        return self._arena.lines.index_select(0, self._to(self._columns.line[cohort.slots]))

    def _history(self, depth: int, index: torch.Tensor) -> torch.Tensor | None:
        if not depth:
            return None
        return torch.stack([self._state.x0[j].index_select(0, index) for j in range(depth)], dim=1)

    def _counters(self, cohort: Cohort) -> dict[str, torch.Tensor]:
        columns, slots = self._columns, cohort.slots
        particle = columns.words[slots] // STREAMS_PER_PARTICLE
        found = {"seed": columns.seed[slots], "row": columns.row[slots], "particle": particle}
        return {name: self._to(value) for name, value in (found | {"line": columns.cursor(slots)}).items()}

    def _amounts(self, cohort: Cohort, outputs: Tensors, line: torch.Tensor) -> torch.Tensor | None:
        """Noise of learned amounts [rows, n]; None where the update draws it."""
        if not cohort.learned:
            return None
        n, found = self._state.elements, self._counters(cohort)
        stream = STREAM_STEP + STREAMS_PER_PARTICLE * found["particle"]
        normals = philox_normal(found["seed"], found["row"], found["line"], stream, n)
        said = outputs["prediction"].view(len(outputs["prediction"]), -1)[: cohort.rows, n : 2 * n]
        return normals * noise_factor(said, line[:, SPREAD : SPREAD + 1])

    def _given(self, cohort: Cohort, index: torch.Tensor) -> dict[str, torch.Tensor]:
        if not len(cohort.masked):
            return {}
        known, observed = self._state.allocate_given()
        return {"known": known.index_select(0, index), "observed": observed.index_select(0, index)}

    def _keep(self, cohort: Cohort, index: torch.Tensor, x: torch.Tensor, x0: torch.Tensor) -> None:
        older = self._state.x0
        for j in range(cohort.depth - 1, 0, -1):
            older[j].index_copy_(0, index, older[j - 1].index_select(0, index))
        older[0].index_copy_(0, index, x0)
        self._state.x.index_copy_(0, index, x)
        self._columns.line[cohort.slots] += 1


def _given_x0(line: torch.Tensor) -> torch.Tensor:
    """Coefficients for outputs that are x0 themselves, and a state that has moved by a and e."""
    following = line.clone()
    following[:, P_X], following[:, Q_OUT], following[:, G] = 0.0, 1.0, 1.0
    following[:, A], following[:, E] = 1.0, 0.0
    return following
