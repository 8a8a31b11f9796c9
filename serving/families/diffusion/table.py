"""Rows of the denoising loop: state in arrays, one per quantity; one update for every sampler."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from export.package.schema import Condition
from kernels.philox import STREAM_INITIAL, STREAMS_PER_PARTICLE, philox_normal
from kernels.table import compiled
from serving.families.diffusion.arena import CoefficientArena
from serving.families.diffusion.cohort import Columns, Noise
from serving.families.diffusion.compiled_steps import CompiledSteps
from serving.families.diffusion.device_steps import DeviceSteps
from serving.families.diffusion.plan import Plan
from serving.families.diffusion.state import RowState
from serving.families.diffusion.tensor_steps import TensorSteps
from serving.families.request import Array
from serving.families.rows import Advance, HostRows, Loop, Slots, StayingTable, Step, Tensors
from serving.runtime.capture import sent

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class DenoiseRows:
    """Payload of a loop: rows that follow one plan.

    ``row`` [rows] is the noise counter's row (first_row + i), ``particle`` [rows] its completion;
    ``start`` the state before the first line, model coordinates (None: drawn); ``known`` and
    ``observed`` [rows, *shape] the given entries, model coordinates; conditions by name [rows, ...], and the
    null values of those whose rows bring their own.
    """

    plan: Plan
    seed: int
    row: Ints
    conditions: Mapping[str, Array] = field(default_factory=dict)
    particle: Ints | None = None
    start: torch.Tensor | None = None
    known: torch.Tensor | None = None
    observed: torch.Tensor | None = None
    nulls: Mapping[str, Array] = field(default_factory=dict)


class DenoiseTable(StayingTable):
    """State of ``capacity`` rows of ``shape``; coefficients come from the arena, by line."""

    component = "denoiser"
    steady = True

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Sequence[Condition],
        capacity: int,
        device: torch.device,
        nulls: Mapping[str, Array | None] | None = None,
        threshold_limit: float = math.inf,
    ) -> None:
        self.capacity = capacity
        self._shape, self._device = shape, device
        self._arena = CoefficientArena(device)
        self._columns = Columns(capacity)
        self._state = RowState(shape, conditions, capacity, device, nulls, threshold_limit)
        self._tensor_steps = TensorSteps(self._state, self._arena, self._columns)
        self._compiled_steps: CompiledSteps | None = None
        if device.type == "cpu" and compiled():
            self._compiled_steps = CompiledSteps(self._state, self._arena, self._columns)

    # -- admission -----------------------------------------------------------------------------------

    def admit(self, slots: Slots, loop: Loop) -> None:
        """Write the rows of a ``DenoiseRows`` payload."""
        payload = loop.payload
        assert isinstance(payload, DenoiseRows)
        plan, state, masked = payload.plan, self._state, payload.observed is not None
        noise = Noise(payload.seed, payload.row, payload.particle)
        self._columns.begin(slots, plan, self._arena.place(plan, len(slots)), masked, noise)
        self._start(slots, payload)
        for name, column in state.conditions.items():
            state.put(column, slots, payload.conditions[name])
        for name, given in payload.nulls.items():
            state.put(state.null[name], slots, given)
        if payload.known is not None and payload.observed is not None:
            for column, entries in zip(
                state.allocate_given(), (payload.known, payload.observed), strict=True
            ):
                state.write(column, slots, entries.reshape(len(slots), -1))

    def _start(self, slots: Slots, payload: DenoiseRows) -> None:
        deviation = payload.plan.initial_sd
        if payload.start is not None:
            start = payload.start.float().reshape(len(slots), -1)
        elif self._compiled_steps is not None:
            self._compiled_steps.begin(slots, deviation)
            return
        else:
            elements = self._state.elements
            noise = initial_noise(payload.seed, payload.row, payload.particle, elements, self._device)
            start = noise * deviation
        self._state.write(self._state.x, slots, start)

    def release(self, slots: Slots) -> None:
        """Forget the slots' plans and noise; harmless where they are free."""
        self._arena.release(self._columns.clear(slots))
        if self._state.observed is not None:
            self._state.observed[torch.from_numpy(slots)] = False
        self._tensor_steps.forget()

    # -- ticks ---------------------------------------------------------------------------------------

    def remaining(self, slots: Slots) -> Ints:
        """Lines left."""
        return np.asarray(self._columns.end[slots] - self._columns.line[slots], np.int64)

    def width(self, slots: Slots) -> Ints:
        """2 with guidance: conditional, then unconditional."""
        return self._columns.width[slots]

    def gather(self, slots: Slots, inputs: Tensors) -> None:
        """State, model times and conditions; rows of width 2 once more with null conditions."""
        self._tensor_steps.gather(slots, inputs)

    def advance(self, slots: Slots, outputs: Tensors) -> None:
        """One line of every row."""
        self._tensor_steps.advance(slots, outputs)

    def bound(self, slots: Slots, inputs: Tensors, outputs: Tensors) -> tuple[Step, Advance] | None:
        """In compiled code with the same bits, unless a row's step is more than coefficients."""
        fast = self._compiled_steps
        return None if fast is None or self._columns.specials else fast.bound(slots, inputs, outputs)

    # -- on the device alone -------------------------------------------------------------------------

    def stays(self, slots: Slots) -> bool:
        """Unless a row's step is more than coefficients."""
        return not self._columns.specials

    def stand(self, inputs: Tensors, outputs: Tensors) -> DeviceSteps:
        """Rows that the device steps in one launch after the network."""
        return DeviceSteps(self._state, self._arena, self._columns, inputs, outputs)

    def count(self, slots: Slots) -> None:
        """One line done."""
        self._columns.line[slots] += 1

    # -- results -------------------------------------------------------------------------------------

    def result(self, slots: Slots) -> Tensors:
        """``x`` [rows, *shape] float32, model coordinates."""
        return self._rows(self._state.x, slots)

    def preview(self, slots: Slots) -> Tensors:
        """``x``: the current estimate of x0."""
        return self._rows(self._state.x0[0], slots)

    def _rows(self, column: torch.Tensor, slots: Slots) -> Tensors:
        shape = len(slots), *self._shape
        if self._state.on_host:
            return HostRows({"x": self._state.array(column)[slots].reshape(shape)})
        return {"x": self._state.read(column, slots).view(shape)}


def initial_noise(
    seed: int, row: Ints, particle: Ints | None, n: int, device: torch.device | None = None
) -> torch.Tensor:
    """Unit normals [rows, n] of stream 0, line 0."""
    key = np.full(len(row), np.uint64(seed).astype(np.int64))
    words = np.zeros_like(row) if particle is None else STREAMS_PER_PARTICLE * particle
    counters = torch.from_numpy(np.stack([key, row, np.zeros_like(key), words + STREAM_INITIAL]))
    key_word, row_word, line, stream = sent(counters, device or torch.device("cpu"))
    return philox_normal(key_word, row_word, line, stream, n)
