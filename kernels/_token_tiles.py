"""What the two kernels of sample_tokens share: exact thresholds without a sort, noise, the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernels._elementary import log_tile
from kernels._triton import jit
from kernels.philox import uniform_tile

if TYPE_CHECKING:
    import triton.language as tl


@jit()
def order_key(x: tl.tensor) -> tl.tensor:
    """Return uint32 in the order of float32 ``x``, -0 equal to +0."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) | -2147483648)).to(tl.uint32, bitcast=True)


@jit()
def threshold(key: tl.tensor, weight: tl.tensor, target: tl.tensor) -> tl.tensor:
    """Return the largest t with sum(weight where key >= t) >= target, bit by bit: exact, no sort."""
    t = tl.full((), 0, tl.uint32)
    step = tl.full((), 0x80000000, tl.uint32)
    for _ in range(32):
        reached = tl.sum(tl.where(key >= t + step, weight, 0.0)) >= target
        t = tl.where(reached, t + step, t)
        step = step >> 1
    return t


@jit()
def log_exponential(uniform: tl.tensor) -> tl.tensor:
    """Return ln E with E = -ln(1 - u); the winning tail is at u -> 0, where float32 is fine-grained."""
    uniform = tl.maximum(uniform, 2.3283064365386963e-10)
    survival = 1.0 - uniform
    coarse = tl.minimum(survival, 0.999999940395355225)
    exponential = -log_tile(coarse) * tl.div_rn(uniform, 1.0 - coarse)
    return log_tile(tl.where(survival == 1.0, uniform, exponential))


@jit()
def noisy_scores(
    scores: tl.tensor,
    kept: tl.tensor,
    seed_ptr: tl.tensor,
    row_ptr: tl.tensor,
    position_ptr: tl.tensor,
    particle_ptr: tl.tensor,
    r: tl.tensor,
    heat: tl.tensor,
    lane: tl.tensor,
    counter: tl.tensor,
) -> tl.tensor:
    """Return scores - ln E of the kept tokens; at temperature 0 the scores' maximum, which is 0, alone."""
    noisy = tl.where(kept & (scores == 0.0), 0.0, float("-inf"))
    if heat > 0.0:
        stream = tl.full((), 3, tl.int64)
        if particle_ptr is not None:
            stream += 16 * tl.load(particle_ptr + r)
        seed, row, position = tl.load(seed_ptr + r), tl.load(row_ptr + r), tl.load(position_ptr + r)
        uniform = uniform_tile(seed, lane, counter, position, stream, row)
        noisy = tl.where(kept, scores - log_exponential(uniform), float("-inf"))
    return noisy


@jit()
def store_choice(
    logits_ptr: tl.tensor,
    token_ptr: tl.tensor,
    raw_ptr: tl.tensor,
    processed_ptr: tl.tensor,
    r: tl.tensor,
    token: tl.tensor,
    maximum: tl.tensor,
    inverse: tl.tensor,
    heat: tl.tensor,
    raw_mass: tl.tensor,
    mass: tl.tensor,
) -> None:
    """Write the token and its two log-probabilities."""
    score = tl.load(logits_ptr + token).to(tl.float32) - maximum
    tl.store(token_ptr + r, token.to(tl.int64))
    tl.store(raw_ptr + r, score - log_tile(raw_mass))
    tl.store(processed_ptr + r, tl.where(heat > 0.0, score * inverse - log_tile(mass), 0.0))


@jit()
def logit_tile(logits_ptr: tl.tensor, size: tl.tensor, first: tl.tensor, BLOCK: tl.constexpr) -> tl.tensor:
    """Return (logits, element, counter) [4, BLOCK] of the counters from ``first`` on."""
    quarter = (size + 31) // 32 * 8
    counter = (first + tl.arange(0, BLOCK))[None, :]
    element = tl.arange(0, 4)[:, None] * quarter + counter
    mask = (counter < quarter) & (element < size)
    x = tl.load(logits_ptr + element, mask=mask, other=float("-inf")).to(tl.float32)
    return x, element, counter


@jit()
def tiled_threshold(
    logits_ptr: tl.tensor,
    size: tl.tensor,
    maximum: tl.tensor,
    inverse: tl.tensor,
    lowest: tl.tensor,
    target: tl.tensor,
    COUNTED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """:func:`threshold` of a row that does not fit registers: two bits, three pivots, per pass over it."""
    t = tl.full((), 0, tl.uint32)
    step = tl.full((), 0x40000000, tl.uint32)
    for _round in range(16):
        one = tl.zeros((4, BLOCK), tl.float32)
        two, three = one, one
        for first in range(0, (size + 31) // 32 * 8, BLOCK):
            x, _, _ = logit_tile(logits_ptr, size, first, BLOCK)
            key = order_key(x)
            weight = tl.where(x > float("-inf"), 1.0, 0.0)
            if not COUNTED:
                weight = tl.where(key >= lowest, tl.exp((x - maximum) * inverse), 0.0)
            one += tl.where(key >= t + step, weight, 0.0)
            two += tl.where(key >= t + 2 * step, weight, 0.0)
            three += tl.where(key >= t + 3 * step, weight, 0.0)
        passed = (tl.sum(one) >= target).to(tl.uint32)
        passed += (tl.sum(two) >= target).to(tl.uint32)
        passed += (tl.sum(three) >= target).to(tl.uint32)
        t += passed * step
        step = step >> 2
    return t
