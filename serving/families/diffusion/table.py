"""Rows of the denoising loop: state in arrays, one per quantity; one update for every sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from export.package.schema import Condition
from kernels.philox import STREAM_INITIAL, STREAMS_PER_PARTICLE, philox_normal
from serving.families.diffusion.accelerator import AcceleratorSteps
from serving.families.diffusion.arena import CoefficientArena
from serving.families.diffusion.cohort import Cohort, Columns
from serving.families.diffusion.host import HostSteps
from serving.families.diffusion.plan import Plan
from serving.families.diffusion.state import RowState
from serving.families.request import Array
from serving.families.rows import BatchedTable, Loop, Slots, Tensors

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class DenoiseRows:
    """Payload of a loop: rows that follow one plan.

    ``row`` [rows] is the noise counter's row (first_row + i), ``particle`` [rows] its completion;
    ``start`` the state before the first line, model coordinates (None: drawn); ``known`` and
    ``observed`` [rows, *shape] the given entries, model coordinates; conditions by name [rows, ...].
    """

    plan: Plan
    seed: int
    row: Ints
    conditions: Mapping[str, Array] = field(default_factory=dict)
    particle: Ints | None = None
    start: torch.Tensor | None = None
    known: torch.Tensor | None = None
    observed: torch.Tensor | None = None


class DenoiseTable(BatchedTable):
    """State of ``capacity`` rows of ``shape``; coefficients come from the arena, by line."""

    component = "denoiser"
    steady = True

    def __init__(
        self, shape: tuple[int, ...], conditions: Sequence[Condition], capacity: int, device: torch.device
    ) -> None:
        self.capacity = capacity
        self._shape, self._device = shape, device
        self._arena = CoefficientArena(device)
        self._columns = Columns(capacity)
        self._state = RowState(shape, conditions, capacity, device)
        steps = HostSteps if device.type == "cpu" else AcceleratorSteps
        self._steps: HostSteps | AcceleratorSteps = steps(self._state, self._arena, self._columns)
        self._cohort: Cohort | None = None

    # -- admission -----------------------------------------------------------------------------------

    def admit(self, slots: Slots, loop: Loop) -> None:
        """Write the rows of a ``DenoiseRows`` payload."""
        payload = loop.payload
        assert isinstance(payload, DenoiseRows)
        self.release(slots)
        plan, state = payload.plan, self._state
        self._columns.begin(slots, plan, self._arena.place(plan, len(slots)), payload.observed is not None)
        self._columns.identify(slots, payload.seed, payload.row, payload.particle)
        index = torch.from_numpy(slots).to(self._device)
        state.x.index_copy_(0, index, self._start(payload))
        for older in state.x0:
            older.index_fill_(0, index, 0.0)
        for name, column in state.conditions.items():
            values = torch.from_numpy(np.ascontiguousarray(payload.conditions[name]))
            column.index_copy_(0, index, values.to(self._device, column.dtype))
        if payload.observed is not None:
            self._admit_mask(index, payload)

    def _start(self, payload: DenoiseRows) -> torch.Tensor:
        n = self._state.elements
        if payload.start is not None:
            return payload.start.to(self._device, torch.float32).reshape(-1, n)
        normals = initial_noise(payload.seed, payload.row, payload.particle, n)
        return (normals * payload.plan.initial_sd).to(self._device)

    def _admit_mask(self, index: torch.Tensor, payload: DenoiseRows) -> None:
        for column, given in zip(
            self._state.allocate_given(), (payload.known, payload.observed), strict=True
        ):
            assert given is not None
            column.index_copy_(0, index, given.to(self._device).reshape(len(index), -1))

    def release(self, slots: Slots) -> None:
        """Forget the slots' plans and noise; harmless where they are free."""
        self._cohort = None
        self._arena.release(self._columns.clear(slots))
        if self._state.observed is not None:
            self._state.observed.index_fill_(0, torch.from_numpy(slots).to(self._device), False)
        self._steps.forget(slots)

    # -- ticks ---------------------------------------------------------------------------------------

    def remaining(self, slots: Slots) -> Ints:
        """Lines left."""
        return np.asarray(self._columns.end[slots] - self._columns.line[slots], np.int64)

    def width(self, slots: Slots) -> Ints:
        """2 with guidance: conditional, then unconditional."""
        return np.asarray(1 + self._columns.guided[slots], np.int64)

    def gather(self, slots: Slots, inputs: Tensors) -> None:
        """State, model times and conditions; rows of width 2 once more with null conditions."""
        if inputs["x"].dtype is torch.bfloat16 and isinstance(self._steps, HostSteps):
            # NumPy has no such type.
            self._steps = AcceleratorSteps(self._state, self._arena, self._columns)
        self._steps.gather(self._together(slots), inputs)

    def advance(self, slots: Slots, outputs: Tensors) -> None:
        """One line of every row."""
        self._steps.advance(self._together(slots), outputs)

    def _together(self, slots: Slots) -> Cohort:
        if self._cohort is None or self._cohort.slots is not slots:
            self._cohort = Cohort(slots, self._columns)
        return self._cohort

    # -- results -------------------------------------------------------------------------------------

    def result(self, slots: Slots) -> Tensors:
        """``x`` [rows, *shape] float32, model coordinates."""
        return {"x": self._rows(self._state.x, slots)}

    def preview(self, slots: Slots) -> Tensors:
        """``x``: the current estimate of x0."""
        return {"x": self._rows(self._state.x0[0], slots)}

    def _rows(self, state: torch.Tensor, slots: Slots) -> torch.Tensor:
        index = torch.from_numpy(slots).to(self._device)
        return state.index_select(0, index).view(len(slots), *self._shape)


def initial_noise(seed: int, row: Ints, particle: Ints | None, n: int) -> torch.Tensor:
    """Unit normals [rows, n] of stream 0, line 0."""
    key = torch.from_numpy(np.full(len(row), np.uint64(seed).astype(np.int64)))
    words = np.zeros_like(row) if particle is None else STREAMS_PER_PARTICLE * particle
    stream = torch.from_numpy(words + STREAM_INITIAL)
    return philox_normal(key, torch.from_numpy(row), torch.zeros_like(key), stream, n)
