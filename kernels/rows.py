"""denoise_rows: a whole step of a table's rows in place, and the network's next inputs, in one launch.

What :mod:`kernels.denoise` computes, for rows that stay in a table: each position of the network's batch says
which slot it advances, and all that changes from step to step is on the device, so that network and kernel
can be captured together in a CUDA graph and replayed without a word from the host. After the update the
scaled state and the time of the row's next line are written where the network reads them, once more for the
unconditional twin. Outputs that are not finite are flagged by position; the host reads the flags later.

Bytes per element, float32: 24 (x, output, x', x0, next input), 8 more with guidance, 8 per history slot, 5
with known and observed; noise costs none. Floor at 32 x 3 x 256 x 256: 151 MB, 35 us at 4.3 TB/s. The same
IEEE operations in the same order as denoise_step, hence its bits. Measured: not yet on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from kernels import denoise
from kernels._registry import register
from kernels._triton import jit
from kernels.denoise import Coefficients, configuration
from kernels.philox import STREAMS_PER_PARTICLE, counters_per_row, normal_tile, used

if TYPE_CHECKING:
    import triton.language as tl

TIME, SCALE, COLUMNS = 14, 15, 17  # of a line, after the coefficients of denoise_step
SLOT, TWIN, LINE, NEXT, FIRST, DEPTH, SEED, ROW, WORDS, MASKED = range(10)
FIELDS = 10

SCHEMA = (
    "denoise_rows(Tensor(a!) x, Tensor(b!) x0, Tensor lines, Tensor(c!) positions, Tensor output, "
    "Tensor(d!) network_x, Tensor(e!) network_t, Tensor(f!) bad, Tensor? known=None, "
    "Tensor? observed=None) -> ()"
)


class Operands(NamedTuple):
    """The operator's arguments, in the order of its schema."""

    x: torch.Tensor
    x0: torch.Tensor
    lines: torch.Tensor
    positions: torch.Tensor
    output: torch.Tensor
    network_x: torch.Tensor
    network_t: torch.Tensor
    bad: torch.Tensor
    known: torch.Tensor | None = None
    observed: torch.Tensor | None = None


def denoise_rows(
    x: torch.Tensor,
    x0: torch.Tensor,
    lines: torch.Tensor,
    positions: torch.Tensor,
    output: torch.Tensor,
    network_x: torch.Tensor,
    network_t: torch.Tensor,
    bad: torch.Tensor,
    known: torch.Tensor | None = None,
    observed: torch.Tensor | None = None,
) -> None:
    """Advance every position by its line, in place.

    - ``x`` float32 [capacity, n]; ``x0`` float32 [3, capacity, n]: the estimates of 1, 2, 3 lines ago.
    - ``lines`` float32 [size, 17]: coefficients of denoise_step, the network's time, its input's scale.
    - ``positions`` int64 [10, positions]: the slot (-1: inert), the network row of the unconditional twin
      (its own without one), the line (advanced), a copy of it, the plan's first line, how many x0 the plan
      reads, seed, noise row, stream word before the stream, whether entries are given.
    - ``output`` [network rows, at least n] float32, float16 or bfloat16.
    - ``network_x`` [network rows, n] and ``network_t`` [network rows] receive the next inputs.
    - ``bad`` int32 [positions] becomes 1 where the output is not finite.
    - ``known`` float32 and ``observed`` bool [capacity, n].
    """
    _operator(x, x0, lines, positions, output, network_x, network_t, bad, known, observed)


def reference(*operands: Any) -> None:
    """The operator by denoise_step, gathers and scatters."""
    given = Operands(*operands)
    position = (given.positions[SLOT] >= 0).nonzero().squeeze(1)
    fields = given.positions[:, position]
    slot, twin, n = fields[SLOT], fields[TWIN], given.x.shape[1]
    output = given.output.flatten(1)[:, :n]
    line = given.lines[fields[LINE]]
    given.bad[position] |= (~torch.isfinite(output[position] + output[twin]).all(1)).int()
    # The conditional predictions first, then every row's unconditional one.
    paired, own = torch.cat((output[position], output[twin])), torch.arange(len(slot))
    unconditional = torch.where(twin == position, own, own + len(slot))
    x, x0 = denoise.reference(
        given.x[slot], paired, _switched(line, fields), unconditional, given.x0[:, slot].transpose(0, 1),
        *_given_entries(given, slot), *_counters(fields),
    )  # fmt: skip
    for depth in (2, 1):
        deep = slot[fields[DEPTH] > depth]
        given.x0[depth, deep] = given.x0[depth - 1, deep]
    given.x0[0, slot], given.x[slot] = x0, x
    given.positions[LINE, position] += 1
    following = given.lines[(fields[LINE] + 1).clamp(max=len(given.lines) - 1)]
    for rows in (position, twin):
        given.network_x.view(len(given.network_t), n)[rows] = (x * following[:, SCALE : SCALE + 1]).to(
            given.network_x.dtype
        )
        given.network_t[rows] = following[:, TIME].to(given.network_t.dtype)


def _switched(line: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
    """Coefficients of denoise_step: history beyond a plan's depth and given entries of others are off."""
    table = line[:, : len(Coefficients._fields)].clone()
    table[:, 7:10] *= (torch.arange(3) < fields[DEPTH][:, None]).float()
    table[:, 11:13] *= fields[MASKED][:, None].float()
    return table


def _given_entries(given: Operands, slot: torch.Tensor) -> tuple[Any, ...]:
    """noise, known, observed and renoise of denoise_step."""
    if given.known is None or given.observed is None:
        return None, None, None, None
    return None, given.known[slot], given.observed[slot], None


def _counters(fields: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return fields[SEED], fields[ROW], fields[LINE] - fields[FIRST], fields[WORDS] // STREAMS_PER_PARTICLE


@jit()
def history_tile(
    following: tl.tensor,
    x0_ptr: tl.tensor,
    table: tl.tensor,
    element: tl.tensor,
    stride: tl.tensor,
    within: tl.tensor,
    mask: tl.tensor,
    n: tl.tensor,
    depth: tl.tensor,
) -> tl.tensor:
    """Return following + c1 h1 + c2 h2 + c3 h3 [4, block]; h1 and h2 make room for the next x0."""
    newer = tl.zeros(element.shape, tl.float32)
    for older in tl.static_range(3):
        deep = mask & (within < tl.where(depth > older, n, 0))
        past = tl.load(x0_ptr + older * stride + element, mask=deep, other=0.0)
        scale = tl.load(table + 7 + older)
        following += tl.where(scale != 0.0, scale * past, 0.0)
        if older > 0:
            tl.store(x0_ptr + older * stride + element, newer, mask=deep)
        newer = past
    return following


@jit()
def _rows_kernel(
    x_ptr: tl.tensor,
    x0_ptr: tl.tensor,
    lines_ptr: tl.tensor,
    positions_ptr: tl.tensor,
    output_ptr: tl.tensor,
    network_x_ptr: tl.tensor,
    network_t_ptr: tl.tensor,
    bad_ptr: tl.tensor,
    known_ptr: tl.tensor,
    observed_ptr: tl.tensor,
    n: tl.tensor,
    output_stride: tl.tensor,
    state_stride: tl.tensor,
    last_line: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    p = tl.program_id(0).to(tl.int64)
    fields = positions_ptr + p
    count = tl.num_programs(0).to(tl.int64)
    slot = tl.load(fields)
    if slot < 0:
        return
    twin, line = tl.load(fields + count), tl.load(fields + 2 * count)
    depth, words = tl.load(fields + 5 * count), tl.load(fields + 8 * count)
    seed, row = tl.load(fields + 6 * count), tl.load(fields + 7 * count)
    step = line - tl.load(fields + 4 * count)
    quarter = (n + 31) // 32 * 8
    lane = tl.arange(0, 4)[:, None]
    counter = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    within = lane * quarter + counter
    mask = (counter < quarter) & (within < n)
    element = slot * n + within
    table = lines_ptr + line * 17

    state = tl.load(x_ptr + element, mask=mask, other=0.0)
    m = tl.load(output_ptr + p * output_stride + within, mask=mask, other=0.0).to(tl.float32)
    spoiled = m - m
    if twin != p:
        u = tl.load(output_ptr + twin * output_stride + within, mask=mask, other=0.0).to(tl.float32)
        spoiled += u - u
        m = u + tl.load(table) * (m - u)
    if tl.max(tl.where(spoiled == 0.0, 0, 1)) > 0:
        tl.store(bad_ptr + p, 1)
    x0 = tl.load(table + 1) * state + tl.load(table + 2) * m
    lo, hi = tl.load(table + 3), tl.load(table + 4)
    x0 = tl.where(x0 < lo, lo, tl.where(x0 > hi, hi, x0))  # NaN stays NaN
    e = tl.load(table + 13)
    moved = tl.where(e != 0.0, e * m, 0.0) + tl.load(table + 5) * state
    following = moved + tl.load(table + 6) * x0 + 0.0
    following = history_tile(following, x0_ptr, table, element, state_stride, within, mask, n, depth)
    d = tl.load(table + 10)
    if d != 0.0:
        following += d * normal_tile(seed, lane, counter, step, words + 1, row)
    if known_ptr is not None:  # noqa: SIM102 - this one is decided by the compiler, the next on the device
        if tl.load(fields + 9 * count) != 0:
            scale, q2 = tl.load(table + 11), tl.load(table + 12)
            inpainted = used(mask, within, n, tl.abs(scale) + tl.abs(q2))
            given = tl.load(observed_ptr + element, mask=inpainted, other=0) != 0
            known = scale * tl.load(known_ptr + element, mask=used(mask, within, n, scale), other=0.0) + 0.0
            if q2 != 0.0:
                known += q2 * normal_tile(seed, lane, counter, step, words + 2, row)
            following = tl.where(given, known, following)
    tl.store(x_ptr + element, following, mask=mask)
    tl.store(x0_ptr + element, x0, mask=mask)

    ahead = lines_ptr + tl.minimum(line + 1, last_line) * 17
    scaled, time = following * tl.load(ahead + 15), tl.load(ahead + 14)
    tl.store(network_x_ptr + p * n + within, scaled, mask=mask)
    tl.store(network_x_ptr + twin * n + within, scaled, mask=mask & (within < tl.where(twin != p, n, 0)))
    if tl.program_id(1) == 0:
        tl.store(network_t_ptr + p, time)
        tl.store(network_t_ptr + twin, time)
        tl.store(fields + 3 * count, line + 1)


def launch(*operands: torch.Tensor) -> None:
    """The operator in Triton: one launch, and a copy of the positions' lines."""
    given = Operands(*operands)
    capacity, n = given.x.shape
    count = given.positions.shape[1]
    if count == 0 or n == 0:
        return
    block, warps = configuration(n)
    output = given.output.flatten(1)
    _rows_kernel[(count, -(-counters_per_row(n) // block))](
        *given[:4], output, *given[5:], n, output.stride(0), capacity * n, len(given.lines) - 1,
        BLOCK=block, num_warps=warps, enable_fp_fusion=False,
    )  # fmt: skip
    given.positions[LINE].copy_(given.positions[NEXT])


def _fake(*operands: object) -> None:
    return None


_operator = register(SCHEMA, reference, launch, _fake)
