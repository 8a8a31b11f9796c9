"""sample_tokens: one token per row from logits, by temperature, top-k, top-p, min-p and the Gumbel maximum.

Order of the filters, as in transformers and vLLM: temperature; top-k (ties with the k-th kept); softmax over
the survivors; top-p, the smallest set of the most likely tokens with mass >= p (ties with its last kept);
min-p, p_i >= min_p * p_max; draw. The draw is argmax of s_i - ln E_i, E_i standard exponential (Gumbel, 1954;
Maddison et al., A* sampling, 2014): exact, and no sort. E_i is a pure function of (seed, row, position, token
id): element i of a row of V of :mod:`kernels.philox`, stream 3, so that a token depends neither on the batch
nor on the tokens that the filters removed.

One launch. To 8,192 tokens a row stays in the registers of one program: bytes V * itemsize per row, floor at
128 x 8,192 float32 4.2 MB, 1 us at 4.3 TB/s, but bound by the 32 reductions of each bisection (top-k, top-p).
Above, a program reads its row from the second-level cache up to 36 times. Measured: not yet on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from kernels._registry import register
from kernels._token_reference import reference
from kernels._token_tiles import logit_tile, noisy_scores, order_key, store_choice, threshold, tiled_threshold
from kernels._triton import jit
from kernels.philox import counters_per_row

if TYPE_CHECKING:
    import triton.language as tl

SCHEMA = (
    "sample_tokens(Tensor logits, Tensor temperature, Tensor top_k, Tensor top_p, Tensor min_p, Tensor seed, "
    "Tensor row, Tensor position, Tensor? particle=None, Tensor? log_mass=None) -> (Tensor, Tensor, Tensor)"
)


def sample_tokens(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    seed: torch.Tensor,
    row: torch.Tensor,
    position: torch.Tensor,
    particle: torch.Tensor | None = None,
    log_mass: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (token int64, raw log-probability float32, processed log-probability float32), each [rows].

    ``logits`` is [rows, V], float32, float16 or bfloat16; -inf excludes a token. The others are [rows]:
    ``temperature`` float32, 0 for the argmax (lowest index among ties); ``top_k`` int64, 0 for none;
    ``top_p`` float32, 1 for none; ``min_p`` float32, 0 for none; ``seed``, ``row`` (first_row + i),
    ``position`` and ``particle`` int64 (particle 0 when None). The raw log-probability is that of the
    softmax of the logits as given; the processed one is that of the distribution that was drawn from (0 at
    temperature 0). ``log_mass`` float32 [rows], ln sum exp of the logits where the caller has it, saves
    a pass on CPU. A row with NaN returns some valid index and NaN.
    """
    return _operator(  # type: ignore[no-any-return]
        logits, temperature, top_k, top_p, min_p, seed, row, position, particle, log_mass
    )


@jit()
def _row_kernel(
    logits_ptr: tl.tensor,
    temperature_ptr: tl.tensor,
    top_k_ptr: tl.tensor,
    top_p_ptr: tl.tensor,
    min_p_ptr: tl.tensor,
    seed_ptr: tl.tensor,
    row_ptr: tl.tensor,
    position_ptr: tl.tensor,
    particle_ptr: tl.tensor,
    token_ptr: tl.tensor,
    raw_ptr: tl.tensor,
    processed_ptr: tl.tensor,
    size: tl.tensor,
    stride: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """One program per row, which it holds in registers."""
    r = tl.program_id(0).to(tl.int64)
    logits_ptr += r * stride
    quarter = (size + 31) // 32 * 8
    lane = tl.arange(0, 4)[:, None]
    counter = tl.arange(0, BLOCK)[None, :]
    element = lane * quarter + counter
    mask = (counter < quarter) & (element < size)
    x = tl.load(logits_ptr + element, mask=mask, other=float("-inf")).to(tl.float32)
    heat = tl.load(temperature_ptr + r)
    maximum, inverse = tl.max(x), tl.div_rn(1.0, tl.maximum(heat, 1e-30))
    raw_mass = tl.sum(tl.exp(x - maximum))
    scores = (x - maximum) * inverse
    weight = tl.exp(scores)
    key = order_key(x)

    lowest = tl.full((), 0, tl.uint32)
    k = tl.load(top_k_ptr + r)
    if (k > 0) & (k < size):
        lowest = threshold(key, tl.where(mask, 1.0, 0.0), k.to(tl.float32))
    p = tl.load(top_p_ptr + r)
    if p < 1.0:
        survivors = tl.where(key >= lowest, weight, 0.0)
        lowest = tl.maximum(lowest, threshold(key, survivors, tl.maximum(p * tl.sum(survivors), 1e-37)))
    kept = mask & (key >= lowest) & (weight >= tl.load(min_p_ptr + r)) & (weight > 0.0)
    mass = tl.sum(tl.where(kept, weight, 0.0))

    noisy = noisy_scores(scores, kept, seed_ptr, row_ptr, position_ptr, particle_ptr, r, heat, lane, counter)
    best = tl.max(noisy)
    token = tl.minimum(tl.min(tl.where(noisy == best, element, size)), size - 1)
    store_choice(
        logits_ptr, token_ptr, raw_ptr, processed_ptr, r, token, maximum, inverse, heat, raw_mass, mass
    )


@jit()
def _tiled_kernel(
    logits_ptr: tl.tensor,
    temperature_ptr: tl.tensor,
    top_k_ptr: tl.tensor,
    top_p_ptr: tl.tensor,
    min_p_ptr: tl.tensor,
    seed_ptr: tl.tensor,
    row_ptr: tl.tensor,
    position_ptr: tl.tensor,
    particle_ptr: tl.tensor,
    token_ptr: tl.tensor,
    raw_ptr: tl.tensor,
    processed_ptr: tl.tensor,
    size: tl.tensor,
    stride: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """One program per row, which it reads from the second-level cache once per pass."""
    r = tl.program_id(0).to(tl.int64)
    logits_ptr += r * stride
    quarter = (size + 31) // 32 * 8
    heat = tl.load(temperature_ptr + r)
    inverse = tl.div_rn(1.0, tl.maximum(heat, 1e-30))
    highest = tl.full((4, BLOCK), float("-inf"), tl.float32)
    for first in range(0, quarter, BLOCK):
        x, _, _ = logit_tile(logits_ptr, size, first, BLOCK)
        highest = tl.maximum(highest, x)
    maximum = tl.max(highest)

    lowest = tl.full((), 0, tl.uint32)
    k, p = tl.load(top_k_ptr + r), tl.load(top_p_ptr + r)
    if (k > 0) & (k < size):
        lowest = tiled_threshold(logits_ptr, size, maximum, inverse, lowest, k.to(tl.float32), True, BLOCK)
    raw, survivors = tl.zeros((4, BLOCK), tl.float32), tl.zeros((4, BLOCK), tl.float32)
    for first in range(0, quarter, BLOCK):
        x, _, _ = logit_tile(logits_ptr, size, first, BLOCK)
        raw += tl.exp(x - maximum)
        survivors += tl.where(order_key(x) >= lowest, tl.exp((x - maximum) * inverse), 0.0)
    if p < 1.0:
        target = tl.maximum(p * tl.sum(survivors), 1e-37)
        nucleus = tiled_threshold(logits_ptr, size, maximum, inverse, lowest, target, False, BLOCK)
        lowest = tl.maximum(lowest, nucleus)

    mass = tl.zeros((4, BLOCK), tl.float32)
    best = tl.full((4, BLOCK), float("-inf"), tl.float32)
    chosen = tl.full((4, BLOCK), 0x7FFFFFFF, tl.int32)
    for first in range(0, quarter, BLOCK):
        x, element, counter = logit_tile(logits_ptr, size, first, BLOCK)
        scores = (x - maximum) * inverse
        weight = tl.exp(scores)
        kept = (order_key(x) >= lowest) & (weight >= tl.load(min_p_ptr + r)) & (weight > 0.0)
        mass += tl.where(kept, weight, 0.0)
        noisy = noisy_scores(
            scores,
            kept,
            seed_ptr,
            row_ptr,
            position_ptr,
            particle_ptr,
            r,
            heat,
            tl.arange(0, 4)[:, None],
            counter,
        )
        chosen = tl.where(noisy > best, element, chosen)
        best = tl.maximum(best, noisy)
    token = tl.minimum(tl.min(tl.where(best == tl.max(best), chosen, size)), size - 1)
    store_choice(
        logits_ptr,
        token_ptr,
        raw_ptr,
        processed_ptr,
        r,
        token,
        maximum,
        inverse,
        heat,
        tl.sum(raw),
        tl.sum(mass),
    )


class Configuration(NamedTuple):
    """Launch configuration: whether a row fits the registers of one program, counters per tile, warps."""

    resident: bool
    block: int
    warps: int


def configuration(size: int) -> Configuration:
    """Choose by the vocabulary alone, so that no bit depends on the batch."""
    counters = counters_per_row(size)
    if counters > 2048:
        return Configuration(False, 1024, 16)
    block = 1 << (counters - 1).bit_length()
    return Configuration(True, block, max(1, min(16, block // 64)))


def launch(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    seed: torch.Tensor,
    row: torch.Tensor,
    position: torch.Tensor,
    particle: torch.Tensor | None = None,
    log_mass: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The operator in Triton; one launch, in which the mass falls off anyway."""
    results = _fake(logits)
    rows, size = logits.shape
    if rows == 0:
        return results
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    resident, block, warps = configuration(size)
    kernel = _row_kernel if resident else _tiled_kernel
    kernel[(rows,)](
        logits,
        temperature,
        top_k,
        top_p,
        min_p,
        seed,
        row,
        position,
        particle,
        *results,
        size,
        logits.stride(0),
        BLOCK=block,
        num_warps=warps,
        enable_fp_fusion=False,
    )
    return results


def _fake(logits: torch.Tensor, *operands: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = len(logits)
    return (
        logits.new_empty(rows, dtype=torch.int64),
        logits.new_empty(rows, dtype=torch.float32),
        logits.new_empty(rows, dtype=torch.float32),
    )


_operator = register(SCHEMA, reference, launch, _fake)
