"""Rows of the denoising loop: state in arrays, one per quantity; one update for every sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from export.package.schema import Condition
from kernels.denoise import denoise_step
from kernels.philox import STREAM_INITIAL, STREAM_RENOISE, STREAM_STEP, STREAMS_PER_PARTICLE, philox_normal
from serving.families.diffusion.ahead import Identity, NoiseAhead
from serving.families.diffusion.arena import CoefficientArena
from serving.families.diffusion.guidance import guided, guided_rows
from serving.families.diffusion.plan import HISTORY, RENOISE, SCALE, TIME, G, Plan
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
    """State of ``capacity`` rows of ``shape``; coefficients come from the arena, by cursor."""

    component = "denoiser"

    def __init__(
        self, shape: tuple[int, ...], conditions: Sequence[Condition], capacity: int, device: torch.device
    ) -> None:
        self.capacity = capacity
        self._shape, self._n, self._device = shape, int(np.prod(shape)), device
        self._arena = CoefficientArena(device)
        self._x = torch.zeros((capacity, self._n), device=device)
        self._x0 = [torch.zeros((capacity, self._n), device=device) for _ in range(HISTORY)]
        self._known: torch.Tensor | None = None
        self._observed: torch.Tensor | None = None
        self._conditions = {c.name: _column(c, capacity, device) for c in conditions}
        self._null = {c.name: c.null_value for c in conditions}
        self._columns(capacity)

    def _columns(self, capacity: int) -> None:
        self._first = np.full(capacity, -1, np.int64)  # of the plan in the arena; -1: no plan
        self._cursor, self._length = np.zeros(capacity, np.int64), np.zeros(capacity, np.int64)
        self._depth = np.zeros(capacity, np.int64)
        self._guided, self._draws = np.zeros(capacity, np.bool_), np.zeros(capacity, np.bool_)
        self._masked = np.zeros(capacity, np.bool_)
        self._rescale = np.zeros(capacity, np.float32)
        self._seed, self._row = np.zeros(capacity, np.int64), np.zeros(capacity, np.int64)
        self._particle_words = np.zeros(capacity, np.int64)
        on_cpu = self._device.type == "cpu"
        self._ahead = NoiseAhead(capacity, self._n) if on_cpu else None
        self._renoise_ahead: NoiseAhead | None = None

    # -- admission -----------------------------------------------------------------------------------

    def admit(self, slots: Slots, loop: Loop) -> None:
        """Write the rows of a ``DenoiseRows`` payload."""
        payload = loop.payload
        assert isinstance(payload, DenoiseRows)
        self.release(slots)
        self._admit_plan(slots, payload)
        index = torch.from_numpy(slots).to(self._device)
        self._x.index_copy_(0, index, self._start(payload))
        for older in self._x0:
            older.index_fill_(0, index, 0.0)
        for name, column in self._conditions.items():
            values = torch.from_numpy(np.ascontiguousarray(payload.conditions[name]))
            column.index_copy_(0, index, values.to(self._device, column.dtype))
        if payload.observed is not None:
            self._admit_mask(index, payload)

    def _admit_plan(self, slots: Slots, payload: DenoiseRows) -> None:
        plan = payload.plan
        self._first[slots] = self._arena.place(plan, len(slots))
        self._cursor[slots], self._length[slots], self._depth[slots] = 0, len(plan), plan.depth
        self._guided[slots], self._draws[slots], self._rescale[slots] = plan.guided, plan.draws, plan.rescale
        self._masked[slots] = payload.observed is not None
        self._seed[slots] = np.uint64(payload.seed).astype(np.int64)
        self._row[slots] = payload.row
        particle = 0 if payload.particle is None else payload.particle
        self._particle_words[slots] = STREAMS_PER_PARTICLE * particle

    def _start(self, payload: DenoiseRows) -> torch.Tensor:
        if payload.start is not None:
            return payload.start.to(self._device, torch.float32).reshape(-1, self._n)
        normals = initial_noise(payload.seed, payload.row, payload.particle, self._n)
        return (normals * payload.plan.initial_sd).to(self._device)

    def _admit_mask(self, index: torch.Tensor, payload: DenoiseRows) -> None:
        assert payload.known is not None
        assert payload.observed is not None
        if self._known is None or self._observed is None:
            self._known = torch.zeros_like(self._x)
            self._observed = torch.zeros_like(self._x, dtype=torch.bool)
            if self._ahead is not None:
                self._renoise_ahead = NoiseAhead(self.capacity, self._n)
        self._known.index_copy_(0, index, payload.known.to(self._device).reshape(-1, self._n))
        self._observed.index_copy_(0, index, payload.observed.to(self._device).reshape(-1, self._n))

    def release(self, slots: Slots) -> None:
        """Forget the slots' plans and noise; harmless where they are free."""
        used = slots[self._first[slots] >= 0]
        self._arena.release(self._first[used])
        self._first[slots], self._cursor[slots], self._length[slots] = -1, 0, 0
        if self._observed is not None:
            self._observed.index_fill_(0, torch.from_numpy(slots).to(self._device), False)
        for ahead in (self._ahead, self._renoise_ahead):
            if ahead is not None:
                ahead.forget(slots)

    # -- ticks ---------------------------------------------------------------------------------------

    def remaining(self, slots: Slots) -> Ints:
        """Lines left."""
        return np.asarray(self._length[slots] - self._cursor[slots], np.int64)

    def width(self, slots: Slots) -> Ints:
        """2 with guidance: conditional, then unconditional."""
        return np.asarray(1 + self._guided[slots], np.int64)

    def _lines(self, slots: Slots) -> torch.Tensor:
        lines = torch.from_numpy(self._first[slots] + self._cursor[slots])
        return self._arena.lines.index_select(0, lines.to(self._device))  # [rows, COLUMNS] float32

    def gather(self, slots: Slots, inputs: Tensors) -> None:
        """State, model times and conditions; rows of width 2 once more with null conditions."""
        rows = len(slots)
        index = torch.from_numpy(slots).to(self._device)
        line = self._lines(slots)
        x, t = inputs["x"].view(len(inputs["x"]), -1), inputs["t"]
        torch.mul(self._x.index_select(0, index), line[:, SCALE : SCALE + 1], out=x[:rows])
        t[:rows].copy_(line[:, TIME])
        for name, column in self._conditions.items():
            inputs[name][:rows].copy_(column.index_select(0, index))
        twice = np.flatnonzero(self._guided[slots])
        if len(twice):
            again = torch.from_numpy(twice).to(self._device)
            x[rows:].copy_(x[:rows].index_select(0, again))
            t[rows:].copy_(t[:rows].index_select(0, again))
            self._gather_null(inputs, rows)

    def _gather_null(self, inputs: Tensors, rows: int) -> None:
        for name in self._conditions:
            null = self._null[name]
            inputs[name][rows:].fill_(0 if null is None else null)

    def advance(self, slots: Slots, outputs: Tensors) -> None:
        """One line of every row."""
        index = torch.from_numpy(slots).to(self._device)
        line = self._lines(slots)
        output = outputs["prediction"]
        output = output.view(len(output), -1)[:, : self._n]
        twin = guided_rows(self._guided[slots], self._device)
        state = self._x.index_select(0, index)
        if twin is not None and self._rescale[slots].any():
            output = guided(output, twin, line[:, G : G + 1], self._rescale[slots])
            twin = None
        x, x0 = denoise_step(
            state, output, line[:, : RENOISE + 1], unconditional_row=twin,
            history=self._history(slots, index), **self._noise(slots), **self._given(slots, index),
        )  # fmt: skip
        self._keep(slots, index, x, x0)

    def _history(self, slots: Slots, index: torch.Tensor) -> torch.Tensor | None:
        depth = int(self._depth[slots].max(initial=0))
        if not depth:
            return None
        return torch.stack([self._x0[j].index_select(0, index) for j in range(depth)], dim=1)

    def _keep(self, slots: Slots, index: torch.Tensor, x: torch.Tensor, x0: torch.Tensor) -> None:
        for j in range(int(self._depth[slots].max(initial=0)) - 1, 0, -1):
            self._x0[j].index_copy_(0, index, self._x0[j - 1].index_select(0, index))
        self._x0[0].index_copy_(0, index, x0)
        self._x.index_copy_(0, index, x)
        self._cursor[slots] += 1

    def _noise(self, slots: Slots) -> dict[str, torch.Tensor]:
        """Step noise, drawn ahead on CPU; on a GPU the update draws it from these counters."""
        if self._ahead is None:
            columns = {"seed": self._seed, "row": self._row, "line": self._cursor}
            counters = {name: torch.from_numpy(v[slots]).to(self._device) for name, v in columns.items()}
            particle = torch.from_numpy(self._particle_words[slots] // STREAMS_PER_PARTICLE)
            return counters | {"particle": particle.to(self._device)}
        drawing = self._draws[slots]
        if not drawing.any():
            return {}
        return {"noise": self._drawn(slots, drawing, self._ahead, STREAM_STEP)}

    def _given(self, slots: Slots, index: torch.Tensor) -> dict[str, torch.Tensor]:
        masked = self._masked[slots]
        if not masked.any() or self._known is None or self._observed is None:
            return {}
        given = {
            "known": self._known.index_select(0, index),
            "observed": self._observed.index_select(0, index),
        }
        if self._renoise_ahead is not None:
            given["renoise"] = self._drawn(slots, masked, self._renoise_ahead, STREAM_RENOISE)
        return given

    def _drawn(
        self, slots: Slots, drawing: NDArray[np.bool_], ahead: NoiseAhead, stream: int
    ) -> torch.Tensor:
        """Normals [rows, n]; rows that draw nothing hold anything (their coefficient is 0)."""
        identity = Identity(self._seed, self._row, self._particle_words, stream)
        if drawing.all():
            return ahead.take(slots, self._cursor[slots], identity, self.remaining(slots))
        some = slots[drawing]
        noise = torch.zeros((len(slots), self._n))
        taken = ahead.take(some, self._cursor[some], identity, self.remaining(some))
        return noise.index_copy_(0, torch.from_numpy(np.flatnonzero(drawing)), taken)

    # -- results -------------------------------------------------------------------------------------

    def result(self, slots: Slots) -> Tensors:
        """``x`` [rows, *shape] float32, model coordinates."""
        return {"x": self._rows(self._x, slots)}

    def preview(self, slots: Slots) -> Tensors:
        """``x``: the current estimate of x0."""
        return {"x": self._rows(self._x0[0], slots)}

    def _rows(self, state: torch.Tensor, slots: Slots) -> torch.Tensor:
        index = torch.from_numpy(slots).to(self._device)
        return state.index_select(0, index).view(len(slots), *self._shape)


def initial_noise(seed: int, row: Ints, particle: Ints | None, n: int) -> torch.Tensor:
    """Unit normals [rows, n] of stream 0, line 0."""
    key = torch.from_numpy(np.full(len(row), np.uint64(seed).astype(np.int64)))
    words = np.zeros_like(row) if particle is None else STREAMS_PER_PARTICLE * particle
    stream = torch.from_numpy(words + STREAM_INITIAL)
    return philox_normal(key, torch.from_numpy(row), torch.zeros_like(key), stream, n)


def _column(condition: Condition, capacity: int, device: torch.device) -> torch.Tensor:
    dtype = torch.int64 if condition.kind == "class" else torch.float32
    return torch.zeros((capacity, *condition.shape), dtype=dtype, device=device)
