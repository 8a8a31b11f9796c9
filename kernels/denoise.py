"""denoise_step: one denoising step of every row, whatever its sampler, in one pass over memory.

Per row, with the coefficients of :class:`Coefficients`::

    m  = u + g (c - u)                             guidance (Ho and Salimans, 2022, eq. 6, g = 1 + w)
    x0 = clip(p x + q m, lo, hi)                   epsilon, x0, v, score or flow prediction to x0
    x' = a x + e m + b x0 + c1 h1 + c2 h2 + c3 h3 + d z  any affine single- or multistep sampler
    x' = P known + Q z2, where observed            inpainting by replacement (Lugmayr et al., 2022, eq. 8)

Noise comes as tensors or is drawn here: ``z`` from stream 1 and
``z2`` from stream 2 of :mod:`kernels.philox`. A coefficient that is exactly zero switches its operand off
for that row, which then may hold anything: history where c_j = 0, noise where d = 0, known and observed
where P = Q = 0, z2 where Q = 0. Entries of known that are not observed may hold anything too.

Bytes per element, float32: 16 (x, output, x', x0), 4 more with guidance, 4 per history slot, 5 with known
and observed; noise costs none. Floor at 32 x 3 x 256 x 256: 101 MB, 23 us at 4.3 TB/s; 83 machine
instructions per element with noise, of about 124 that fit beside that traffic. One launch, where eager takes
ten or more. Every operation is a single IEEE operation (no fused multiply-add), so CPU and GPU agree bit for
bit. Measured: not yet on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from kernels._registry import register
from kernels._triton import jit
from kernels.philox import (
    STREAM_RENOISE,
    STREAM_STEP,
    STREAMS_PER_PARTICLE,
    counters_per_row,
    noise_tile,
    philox_normal,
    used,
)

if TYPE_CHECKING:
    import triton.language as tl


class Coefficients(NamedTuple):
    """One row of the coefficient table: the columns of ``coefficients`` [rows, 14] float32, in this order.

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
    e: float = 0.0  # of the prediction itself, beside the x0 that it was clipped to


COLUMNS = len(Coefficients._fields)
HISTORY = 3

SCHEMA = (
    "denoise_step(Tensor x, Tensor model_output, Tensor coefficients, Tensor? unconditional_row=None, "
    "Tensor? history=None, Tensor? noise=None, Tensor? known=None, Tensor? observed=None, "
    "Tensor? renoise=None, Tensor? seed=None, Tensor? row=None, Tensor? line=None, "
    "Tensor? particle=None, bool direct=True) -> (Tensor, Tensor)"
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
    direct: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (x', x0), both new float32 tensors of the shape of ``x``.

    ``x`` is float32 [rows, ...]. ``model_output`` is [network rows, ...], float32, float16 or bfloat16,
    the first ``rows`` of which are the (conditional) predictions c; ``unconditional_row`` int64 [rows] says
    which of its rows holds u: a row's own index where it has no guidance (then m = c, exactly).
    ``coefficients`` is float32 [rows, 14]. ``history`` is float32 [rows, 1..3, ...]. ``known`` is float32 and
    ``observed`` bool (true = given), both of the shape of ``x``. ``noise`` and ``renoise`` are float32 of the
    shape of ``x``; where one is None and ``seed`` is given, it is drawn from ``seed``, ``row``, ``line`` and
    ``particle`` (int64 [rows]; particle 0 when None); else it counts as zero. ``direct`` false promises that
    every e is zero, and saves registers.
    """
    return _operator(  # type: ignore[no-any-return]
        x, model_output, coefficients, unconditional_row, history, noise, known, observed, renoise,
        seed, row, line, particle, direct,
    )  # fmt: skip


class Operands(NamedTuple):
    """The operator's arguments, in the order of its schema."""

    x: torch.Tensor
    model_output: torch.Tensor
    coefficients: torch.Tensor
    unconditional_row: torch.Tensor | None = None
    history: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    known: torch.Tensor | None = None
    observed: torch.Tensor | None = None
    renoise: torch.Tensor | None = None
    seed: torch.Tensor | None = None
    row: torch.Tensor | None = None
    line: torch.Tensor | None = None
    particle: torch.Tensor | None = None
    direct: bool = True


def reference(*operands: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The operator in torch; every operation is one IEEE operation per element, so rows never meet."""
    given = Operands(*operands)
    rows, n = len(given.x), given.x[:1].numel()
    columns = given.coefficients.unsqueeze(2).unbind(1)  # 14 of [rows, 1]
    table = dict(zip(Coefficients._fields, columns, strict=True))
    state = given.x.reshape(rows, n)
    m = _guided(given, table["g"])
    x0 = table["p"] * state + table["q"] * m
    x0 = torch.minimum(torch.maximum(x0, table["lo"]), table["hi"])
    # + 0.0 turns -0 into +0: an operand switched off and one never passed then give the same bits.
    moved = table["e"] * m + table["a"] * state if given.direct else table["a"] * state
    following = moved + table["b"] * x0 + 0.0
    if given.history is not None:
        slots = given.history.reshape(rows, given.history.shape[1], n).unbind(1)
        for slot, scale in zip(slots, (table["c1"], table["c2"], table["c3"]), strict=False):
            following += _switched(scale, slot)
    if (z := _normals(given, given.noise, STREAM_STEP, table["d"])) is not None:
        following += _switched(table["d"], z.reshape(rows, n))
    if given.known is not None and given.observed is not None:
        inpainted = given.observed.reshape(rows, n) & ((table["known"] != 0) | (table["renoise"] != 0))
        following = torch.where(inpainted, _renoised(given, table), following)
    return following.reshape(given.x.shape), x0.reshape(given.x.shape)


def _guided(given: Operands, scale: torch.Tensor) -> torch.Tensor:
    output = given.model_output.reshape(len(given.model_output), given.x[:1].numel()).float()
    conditional = output[: len(given.x)]
    if given.unconditional_row is None:
        return conditional
    unconditional = output.index_select(0, given.unconditional_row)
    return unconditional + scale * (conditional - unconditional)


def _renoised(given: Operands, table: dict[str, torch.Tensor]) -> torch.Tensor:
    """P known + Q z2, [rows, n]."""
    assert given.known is not None
    known = _switched(table["known"], given.known.reshape(len(given.x), given.x[:1].numel())) + 0.0
    z2 = _normals(given, given.renoise, STREAM_RENOISE, table["renoise"])
    return known if z2 is None else known + _switched(table["renoise"], z2.reshape(known.shape))


def _switched(scale: torch.Tensor, operand: torch.Tensor) -> torch.Tensor:
    """Return scale * operand, and zero where the scale is zero, whatever the operand holds."""
    return torch.where(scale != 0, scale * operand, 0.0)


def _normals(
    given: Operands, noise: torch.Tensor | None, stream: int, scale: torch.Tensor
) -> torch.Tensor | None:
    """Return ``noise``, else normals [rows, n] of ``stream`` where scale != 0, else None (no seed)."""
    if noise is not None or given.seed is None or given.row is None or given.line is None:
        return noise
    used = (scale != 0).squeeze(1).nonzero().squeeze(1)
    particle = torch.zeros_like(given.seed) if given.particle is None else given.particle
    words = (stream + STREAMS_PER_PARTICLE * particle)[used]
    normals = torch.zeros(len(scale), given.x[:1].numel())
    normals[used] = philox_normal(
        given.seed[used], given.row[used], given.line[used], words, normals.shape[1]
    )
    return normals


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
    DIRECT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    r = tl.program_id(0).to(tl.int64)
    quarter = (n + 31) // 32 * 8
    lane = tl.arange(0, 4)[:, None]
    counter = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    within = lane * quarter + counter
    mask = (counter < quarter) & (within < n)
    element = r * n + within
    table = table_ptr + r * 14

    state = tl.load(x_ptr + element, mask=mask, other=0.0)
    m = tl.load(output_ptr + r * output_stride + within, mask=mask, other=0.0).to(tl.float32)
    if unconditional_ptr is not None:
        u_row = output_ptr + tl.load(unconditional_ptr + r) * output_stride
        u = tl.load(u_row + within, mask=mask, other=0.0).to(tl.float32)
        m = u + tl.load(table) * (m - u)
    following = tl.load(table + 5) * state
    if DIRECT:
        following = tl.load(table + 13) * m + following
    x0 = tl.load(table + 1) * state + tl.load(table + 2) * m
    lo, hi = tl.load(table + 3), tl.load(table + 4)
    x0 = tl.where(x0 < lo, lo, tl.where(x0 > hi, hi, x0))  # NaN stays NaN
    following = following + tl.load(table + 6) * x0 + 0.0
    for slot in tl.static_range(HISTORY):
        scale = tl.load(table + 7 + slot)
        past = history_ptr + (r * HISTORY + slot) * n + within
        following += scale * tl.load(past, mask=used(mask, within, n, scale), other=0.0)
    d = tl.load(table + 10)
    following += d * noise_tile(
        noise_ptr, seed_ptr, row_ptr, line_ptr, particle_ptr, r, d, within, mask, n, lane, counter, 1
    )
    if known_ptr is not None:
        scale, q2 = tl.load(table + 11), tl.load(table + 12)
        inpainted = used(mask, within, n, tl.abs(scale) + tl.abs(q2))
        given = tl.load(observed_ptr + element, mask=inpainted, other=0) != 0
        known = tl.load(known_ptr + element, mask=used(mask, within, n, scale), other=0.0)
        z2 = noise_tile(
            renoise_ptr, seed_ptr, row_ptr, line_ptr, particle_ptr, r, q2, within, mask, n, lane, counter, 2
        )
        following = tl.where(given, scale * known + 0.0 + q2 * z2, following)
    tl.store(next_ptr + element, following, mask=mask)
    tl.store(x0_ptr + element, x0, mask=mask)


class Configuration(NamedTuple):
    """Launch configuration: counters per program, and warps."""

    block: int
    warps: int


def configuration(n: int) -> Configuration:
    """Choose by the row's size alone, so that no bit depends on the batch.

    512 counters are 2,048 elements, and 4 warps then load 128 bits per thread and operand.
    """
    return Configuration(512, 4) if n >= 2048 else Configuration(128, 2)


def launch(*operands: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The operator in Triton; one launch."""
    given = Operands(*operands)
    following, x0 = _fake(given.x)
    rows, n = len(given.x), given.x[:1].numel()
    if rows == 0 or n == 0:
        return following, x0
    output = given.model_output
    output = output if output[0].is_contiguous() else output.contiguous()
    block, warps = configuration(n)
    table, guided, *dense = (
        None if t is None else t.contiguous() for t in (given.coefficients, *given[3:-1])
    )
    _denoise_kernel[(rows, -(-counters_per_row(n) // block))](
        given.x.contiguous(), output, table, guided, *dense, following, x0, n, output.stride(0),
        HISTORY=0 if given.history is None else given.history.shape[1], DIRECT=given.direct,
        BLOCK=block, num_warps=warps, enable_fp_fusion=False,
    )  # fmt: skip
    return following, x0


def _fake(x: torch.Tensor, *operands: object, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
    following = torch.empty_like(x, memory_format=torch.contiguous_format)
    return following, torch.empty_like(following)


_operator = register(SCHEMA, reference, launch, _fake)
