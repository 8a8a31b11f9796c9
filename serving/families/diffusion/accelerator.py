"""One line of every row on an accelerator: gathers, one fused update, scatters."""

from __future__ import annotations

import numpy as np
import torch

from kernels.denoise import denoise_step
from kernels.philox import STREAM_STEP, STREAMS_PER_PARTICLE, philox_normal
from serving.families.diffusion.arena import CoefficientArena
from serving.families.diffusion.cohort import Cohort, Columns
from serving.families.diffusion.guidance import guided
from serving.families.diffusion.learned import noise_factor
from serving.families.diffusion.plan import HIGH, LOW, P_X, Q_OUT, RENOISE, SCALE, SPREAD, TIME, G
from serving.families.diffusion.state import RowState
from serving.families.diffusion.threshold import thresholded
from serving.families.rows import Slots, Tensors


class AcceleratorSteps:
    """Gathers and advances cohorts; the update draws its noise itself, from counters."""

    def __init__(self, state: RowState, arena: CoefficientArena, columns: Columns) -> None:
        self._state, self._arena, self._columns = state, arena, columns
        self._device = state.device

    def forget(self, slots: Slots) -> None:
        """Nothing is kept between ticks."""

    def gather(self, cohort: Cohort, inputs: Tensors) -> None:
        """State, model times and conditions; rows of width 2 once more with null conditions."""
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
            for name, null in self._state.null.items():
                inputs[name][rows:].fill_(null)

    def advance(self, cohort: Cohort, outputs: Tensors) -> None:
        """One line of every row."""
        index, line = self._to(cohort.slots), self._lines(cohort)
        output = outputs["prediction"]
        output = output.view(len(output), -1)[:, : self._state.elements]
        twin = None if cohort.twin is None else self._to(cohort.twin)
        if twin is not None and cohort.rescaled:
            output, twin = guided(output, twin, line[:, G : G + 1], cohort.rescale), None
        if len(cohort.bounded):
            output, line, twin = self._bounded(cohort, index, output, line, twin), _given_x0(line), None
        x, x0 = denoise_step(
            self._state.x.index_select(0, index), output, line[:, : RENOISE + 1],
            unconditional_row=twin, history=self._history(cohort.depth, index),
            noise=self._amounts(cohort, outputs, line),
            **self._counters(cohort), **self._given(cohort, index),
        )  # fmt: skip
        self._keep(cohort, index, x, x0)

    def _bounded(
        self,
        cohort: Cohort,
        index: torch.Tensor,
        output: torch.Tensor,
        line: torch.Tensor,
        twin: torch.Tensor | None,
    ) -> torch.Tensor:
        """Estimates of x0 [rows, n] after dynamic thresholding; the update only moves the state."""
        prediction = output[: cohort.rows].float()
        if twin is not None:
            unconditional = output.index_select(0, twin)
            prediction = unconditional + line[:, G : G + 1] * (prediction - unconditional)
        x = self._state.x.index_select(0, index)
        x0 = (line[:, P_X : P_X + 1] * x + line[:, Q_OUT : Q_OUT + 1] * prediction).cpu().numpy()
        low, high = (line[:, column : column + 1].cpu().numpy()[cohort.bounded] for column in (LOW, HIGH))
        x0[cohort.bounded] = thresholded(x0[cohort.bounded], cohort.threshold[cohort.bounded], low, high)
        return torch.from_numpy(x0).to(self._device)

    def _to(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self._device)

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
    """Coefficients for outputs that are x0 themselves."""
    following = line.clone()
    following[:, P_X], following[:, Q_OUT], following[:, G] = 0.0, 1.0, 1.0
    return following
