"""denoise_step: one denoising step of every row, whatever its sampler, in one pass over memory.

Per row, with the coefficients of :class:`Coefficients`::

    m  = u + g (c - u)                             guidance (Ho and Salimans, 2022, eq. 6, g = 1 + w)
    x0 = clip(p x + q m, lo, hi)                   epsilon, x0, v, score or flow prediction to x0
    x' = a x + b x0 + c1 h1 + c2 h2 + c3 h3 + d z  any affine single- or multistep sampler
    x' = P known + Q z2, where observed            inpainting by replacement (Lugmayr et al., 2022, eq. 8)

Noise comes as tensors (a CPU loop draws several steps ahead) or is drawn here: ``z`` from stream 1 and
``z2`` from stream 2 of :mod:`kernels.philox`. A coefficient that is exactly zero switches its operand off
for that row, which then may hold anything: history where c_j = 0, noise where d = 0, known and observed
where P = Q = 0, z2 where Q = 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from kernels._registry import register
from kernels._triton import jit
from kernels.philox import (
    STREAM_RENOISE,
    STREAM_STEP,
    STREAMS_PER_PARTICLE,
    counters_per_row,
    normals_of_counters,
    philox_normal,
)

if TYPE_CHECKING:
    import triton.language as tl


class Coefficients(NamedTuple):
    """One row of the coefficient table: the columns of ``coefficients`` [rows, 13] float32, in this order.

    The defaults are neutral: they return the clipped x0 that the network itself predicts.
    """

    g: float = 1.0
    p: float = 0.0
    q: float = 1.0
    lo: float = float("-inf")
    hi: float = float("inf")
    a: float = 0.0
    b: float = 1.0
    c1: float = 0.0
    c2: float = 0.0
    c3: float = 0.0
    d: float = 0.0
    known: float = 0.0  # P
    renoise: float = 0.0  # Q


COLUMNS = len(Coefficients._fields)
HISTORY = 3

SCHEMA = (
    "denoise_step(Tensor x, Tensor model_output, Tensor coefficients, Tensor? unconditional_row=None, "
    "Tensor? history=None, Tensor? noise=None, Tensor? known=None, Tensor? observed=None, "
    "Tensor? renoise=None, Tensor? seed=None, Tensor? row=None, Tensor? line=None, "
    "Tensor? particle=None) -> (Tensor, Tensor)"
)


def denoise_step(
    x: torch.Tensor,
    model_output: torch.Tensor,
    coefficients: torch.Tensor,
    *,
    unconditional_row: torch.Tensor | None = None,
    history: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
    known: torch.Tensor | None = None,
    observed: torch.Tensor | None = None,
    renoise: torch.Tensor | None = None,
    seed: torch.Tensor | None = None,
    row: torch.Tensor | None = None,
    line: torch.Tensor | None = None,
    particle: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (x', x0), both new float32 tensors of the shape of ``x``.

    ``x`` is float32 [rows, ...]. ``model_output`` is [network rows, ...], float32, float16 or bfloat16,
    the first ``rows`` of which are the (conditional) predictions c; ``unconditional_row`` int64 [rows] says
    which of its rows holds u: a row's own index where it has no guidance (then m = c, exactly).
    ``coefficients`` is float32 [rows, 13]. ``history`` is float32 [rows, 1..3, ...]. ``known`` is float32 and
    ``observed`` bool (true = given), both of the shape of ``x``. ``noise`` and ``renoise`` are float32 of the
    shape of ``x``; where one is None and ``seed`` is given, it is drawn from ``seed``, ``row``, ``line`` and
    ``particle`` (int64 [rows]; particle 0 when None); else it counts as zero.
    """
    return _operator(  # type: ignore[no-any-return]
        x, model_output, coefficients, unconditional_row, history, noise, known, observed, renoise,
        seed, row, line, particle,
    )  # fmt: skip


def reference(
    x: torch.Tensor,
    model_output: torch.Tensor,
    coefficients: torch.Tensor,
    unconditional_row: torch.Tensor | None = None,
    history: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
    known: torch.Tensor | None = None,
    observed: torch.Tensor | None = None,
    renoise: torch.Tensor | None = None,
    seed: torch.Tensor | None = None,
    row: torch.Tensor | None = None,
    line: torch.Tensor | None = None,
    particle: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The operator in torch; every operation is one IEEE operation per element, so rows never meet."""
    rows, n = len(x), x[:1].numel()
    table = dict(
        zip(Coefficients._fields, coefficients.unsqueeze(2).unbind(1), strict=True)
    )  # [rows, 1] each
    state = x.reshape(rows, n)
    predicted = _guided(
        model_output.reshape(len(model_output), -1).float(), unconditional_row, table["g"], rows
    )
    x0 = torch.minimum(torch.maximum(table["p"] * state + table["q"] * predicted, table["lo"]), table["hi"])
    # + 0.0 turns -0 into +0: an operand switched off and one never passed then give the same bits.
    following = table["a"] * state + table["b"] * x0 + 0.0
    if history is not None:
        for slot, scale in zip(
            history.reshape(rows, -1, n).unbind(1), (table["c1"], table["c2"], table["c3"]), strict=False
        ):
            following += _switched(scale, slot)
    draw = _Noise(seed, row, line, particle, n)
    if (z := draw.unless(noise, STREAM_STEP, table["d"])) is not None:
        following += _switched(table["d"], z.reshape(rows, n))
    if known is not None and observed is not None:
        given = _switched(table["known"], known.reshape(rows, n)) + 0.0
        if (z2 := draw.unless(renoise, STREAM_RENOISE, table["renoise"])) is not None:
            given += _switched(table["renoise"], z2.reshape(rows, n))
        inpainted = (table["known"] != 0) | (table["renoise"] != 0)
        following = torch.where(observed.reshape(rows, n) & inpainted, given, following)
    return following.reshape(x.shape), x0.reshape(x.shape)


def _guided(
    output: torch.Tensor, unconditional_row: torch.Tensor | None, scale: torch.Tensor, rows: int
) -> torch.Tensor:
    conditional = output[:rows]
    if unconditional_row is None:
        return conditional
    unconditional = output.index_select(0, unconditional_row)
    return unconditional + scale * (conditional - unconditional)


def _switched(scale: torch.Tensor, operand: torch.Tensor) -> torch.Tensor:
    """Return scale * operand, and zero where the scale is zero, whatever the operand holds."""
    return torch.where(scale != 0, scale * operand, 0.0)


class _Noise(NamedTuple):
    """The counters to draw a row's noise from, where the caller has not drawn it."""

    seed: torch.Tensor | None
    row: torch.Tensor | None
    line: torch.Tensor | None
    particle: torch.Tensor | None
    n: int

    def unless(self, given: torch.Tensor | None, stream: int, scale: torch.Tensor) -> torch.Tensor | None:
        """Return ``given``, else normals [rows, n] of ``stream`` where scale != 0, else None (no seed)."""
        if given is not None or self.seed is None or self.row is None or self.line is None:
            return given
        used = (scale != 0).squeeze(1).nonzero().squeeze(1)
        particle = torch.zeros_like(self.seed) if self.particle is None else self.particle
        words = stream + STREAMS_PER_PARTICLE * particle
        normals = torch.zeros(len(scale), self.n)
        normals[used] = philox_normal(self.seed[used], self.row[used], self.line[used], words[used], self.n)
        return normals


@jit()
def _used(mask: tl.tensor, scale: tl.tensor) -> tl.tensor:
    """Return mask & (scale != 0), as a block: Triton's interpreter cannot broadcast a scalar bool."""
    return tl.where(mask, scale, 0.0) != 0.0


@jit()
def _advance(
    x_ptr: tl.tensor,
    conditional_ptr: tl.tensor,
    unconditional_ptr: tl.tensor,
    history_ptr: tl.tensor,
    table_ptr: tl.tensor,
    z: tl.tensor,
    element: tl.tensor,
    mask: tl.tensor,
    n: tl.tensor,
    GUIDED: tl.constexpr,
    HISTORY: tl.constexpr,
) -> tl.tensor:
    """Return (x' before inpainting, x0) of one lane's elements."""
    state = tl.load(x_ptr + element, mask=mask, other=0.0)
    m = tl.load(conditional_ptr + element, mask=mask, other=0.0).to(tl.float32)
    if GUIDED:
        u = tl.load(unconditional_ptr + element, mask=mask, other=0.0).to(tl.float32)
        m = u + tl.load(table_ptr) * (m - u)
    x0 = tl.load(table_ptr + 1) * state + tl.load(table_ptr + 2) * m
    lo = tl.load(table_ptr + 3)
    hi = tl.load(table_ptr + 4)
    x0 = tl.where(x0 < lo, lo, tl.where(x0 > hi, hi, x0))  # NaN stays NaN
    following = tl.load(table_ptr + 5) * state + tl.load(table_ptr + 6) * x0 + 0.0
    for slot in tl.static_range(HISTORY):
        scale = tl.load(table_ptr + 7 + slot)
        h = tl.load(history_ptr + slot * n + element, mask=_used(mask, scale), other=0.0)
        following += scale * h
    return following + tl.load(table_ptr + 10) * z, x0


@jit()
def _inpaint(
    following: tl.tensor,
    known_ptr: tl.tensor,
    observed_ptr: tl.tensor,
    table_ptr: tl.tensor,
    z2: tl.tensor,
    element: tl.tensor,
    mask: tl.tensor,
) -> tl.tensor:
    """Return x' with the observed elements of one lane replaced by P known + Q z2."""
    scale = tl.load(table_ptr + 11)
    noise = tl.load(table_ptr + 12)
    given = tl.load(observed_ptr + element, mask=_used(mask, scale) | _used(mask, noise), other=0) != 0
    known = tl.load(known_ptr + element, mask=_used(given, scale), other=0.0)
    return tl.where(given, scale * known + 0.0 + noise * z2, following)


@jit()
def _noise(
    noise_ptr: tl.tensor,
    seed_ptr: tl.tensor,
    row_ptr: tl.tensor,
    line_ptr: tl.tensor,
    particle_ptr: tl.tensor,
    scale: tl.tensor,
    r: tl.tensor,
    n: tl.tensor,
    counter: tl.tensor,
    STREAM: tl.constexpr,
) -> tl.tensor:
    """Return the normals of the four lanes: loaded, drawn, or zero, and zero where the scale is."""
    z0 = tl.zeros(counter.shape, tl.float32)
    z1, z2, z3 = z0, z0, z0
    if noise_ptr is not None:
        quarter = (n + 31) // 32 * 8
        base = noise_ptr + r * n + counter
        inside = _used(counter < quarter, scale)
        z0 = tl.load(base, mask=inside & (counter < n), other=0.0)
        z1 = tl.load(base + quarter, mask=inside & (quarter + counter < n), other=0.0)
        z2 = tl.load(base + 2 * quarter, mask=inside & (2 * quarter + counter < n), other=0.0)
        z3 = tl.load(base + 3 * quarter, mask=inside & (3 * quarter + counter < n), other=0.0)
    elif seed_ptr is not None:  # noqa: SIM102 (decided at compile time; the next one on the device)
        if scale != 0.0:
            stream = STREAM
            if particle_ptr is not None:
                stream += 16 * tl.load(particle_ptr + r)
            z0, z1, z2, z3 = normals_of_counters(
                tl.load(seed_ptr + r), counter, tl.load(line_ptr + r), stream, tl.load(row_ptr + r)
            )
    return z0, z1, z2, z3


@jit()
def _denoise_kernel(
    x_ptr: tl.tensor,
    output_ptr: tl.tensor,
    table_ptr: tl.tensor,
    unconditional_ptr: tl.tensor,
    history_ptr: tl.tensor,
    noise_ptr: tl.tensor,
    known_ptr: tl.tensor,
    observed_ptr: tl.tensor,
    renoise_ptr: tl.tensor,
    seed_ptr: tl.tensor,
    row_ptr: tl.tensor,
    line_ptr: tl.tensor,
    particle_ptr: tl.tensor,
    next_ptr: tl.tensor,
    x0_ptr: tl.tensor,
    n: tl.tensor,
    output_stride: tl.tensor,
    HISTORY: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    r = tl.program_id(0).to(tl.int64)
    quarter = (n + 31) // 32 * 8
    counter = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    table = table_ptr + r * 13
    x_row = x_ptr + r * n
    history = history_ptr
    if HISTORY > 0:
        history = history_ptr + r * HISTORY * n
    GUIDED: tl.constexpr = unconditional_ptr is not None
    conditional = output_ptr + r * output_stride
    unconditional = conditional
    if GUIDED:
        unconditional = output_ptr + tl.load(unconditional_ptr + r) * output_stride
    noise = _noise(
        noise_ptr, seed_ptr, row_ptr, line_ptr, particle_ptr, tl.load(table + 10), r, n, counter, 1
    )
    renoise = noise
    if known_ptr is not None:
        renoise = _noise(
            renoise_ptr, seed_ptr, row_ptr, line_ptr, particle_ptr, tl.load(table + 12), r, n, counter, 2
        )
    for lane in tl.static_range(4):
        element = lane * quarter + counter
        mask = (counter < quarter) & (element < n)
        following, x0 = _advance(
            x_row, conditional, unconditional, history, table, noise[lane], element, mask, n, GUIDED, HISTORY
        )
        if known_ptr is not None:
            following = _inpaint(
                following, known_ptr + r * n, observed_ptr + r * n, table, renoise[lane], element, mask
            )
        tl.store(next_ptr + r * n + element, following, mask=mask)
        tl.store(x0_ptr + r * n + element, x0, mask=mask)


class Configuration(NamedTuple):
    """Launch configuration: counters per program, and warps."""

    block: int
    warps: int


def configuration(n: int) -> Configuration:
    """Choose by the row's size alone, so that no bit depends on the batch.

    512 counters are 2,048 elements, and 4 warps then load 128 bits per thread and operand.
    """
    return Configuration(512, 4) if n >= 2048 else Configuration(128, 2)


def launch(
    x: torch.Tensor,
    model_output: torch.Tensor,
    coefficients: torch.Tensor,
    unconditional_row: torch.Tensor | None = None,
    history: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
    known: torch.Tensor | None = None,
    observed: torch.Tensor | None = None,
    renoise: torch.Tensor | None = None,
    seed: torch.Tensor | None = None,
    row: torch.Tensor | None = None,
    line: torch.Tensor | None = None,
    particle: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The operator in Triton; one launch."""
    following, x0 = torch.empty_like(x, memory_format=_DENSE), torch.empty_like(x, memory_format=_DENSE)
    rows, n = len(x), x[:1].numel()
    if rows == 0 or n == 0:
        return following, x0
    output = model_output if model_output[0].is_contiguous() else model_output.contiguous()
    block, warps = configuration(n)
    dense = [None if t is None else t.contiguous() for t in (history, noise, known, observed, renoise)]
    counters = [None if t is None else t.contiguous() for t in (seed, row, line, particle)]
    slots = 0 if history is None else history.shape[1]
    _denoise_kernel[(rows, -(-counters_per_row(n) // block))](
        x.contiguous(), output, coefficients.contiguous(), unconditional_row, *dense, *counters,
        following, x0, n, output.stride(0), HISTORY=slots, BLOCK=block, num_warps=warps,
        enable_fp_fusion=False,
    )  # fmt: skip
    return following, x0


def _fake(x: torch.Tensor, *operands: object, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x, memory_format=_DENSE), torch.empty_like(x, memory_format=_DENSE)


_DENSE = torch.contiguous_format
_operator = register(SCHEMA, reference, launch, _fake)
