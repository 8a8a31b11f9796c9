"""The Triton kernels and launchers of :mod:`kernels.likelihood`: one program per row, sums in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from kernels._triton import jit

if TYPE_CHECKING:
    import triton.language as tl

KINDS: Final = ("gaussian", "discretized_gaussian", "discretized_logistic", "bernoulli")


@jit()
def _softplus(x: tl.tensor) -> tl.tensor:
    """ln(1 + exp(x)) = max(x, 0) + ln(1 + exp(-|x|))."""
    return tl.maximum(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x)))


@jit()
def _log_minus_expm1(x: tl.tensor) -> tl.tensor:
    """ln(1 - exp(x)) for x < 0; near 0, where 1 - exp(x) cancels, from its series."""
    small = -x * (1.0 + x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0 + x * (1.0 / 120.0 + x / 720.0)))))
    return tl.log(tl.where(x > -0.03125, small, 1.0 - tl.exp(x)))


@jit()
def _log_tail(x: tl.tensor) -> tl.tensor:
    """ln Q(x) for x >= 0, Q the upper tail of N(0, 1), within 3e-10.

    erfc(y) = t exp(-y^2 + P(t)), t = 1 / (1 + y / 2), with an own minimax fit for P.
    """
    y = tl.minimum(x, 1e100) * 0.7071067811865476
    t = 1.0 / (1.0 + 0.5 * y)
    p = t * -0.12217163099810269 + 1.0261879218141827
    p = (p * t + -3.7290778999053154) * t + 7.604932574594902
    p = (p * t + -9.409882396263441) * t + 7.154001275289815
    p = (p * t + -3.3952032009011717) * t + 1.2475707291793199
    p = (p * t + -0.38146257644660864) * t + -0.09724197004211467
    p = (p * t + -0.09076430301777638) * t + 0.08363319683681339
    p = (p * t + 0.3749902797514084) * t + 1.0000001241183307
    return p * t + -1.2655121237475264 - y * y + tl.log(t) - 0.6931471805599453


@jit()
def _log_cdf(x: tl.tensor) -> tl.tensor:
    """ln Phi(x)."""
    tail = _log_tail(tl.abs(x))
    return tl.where(x < 0.0, tail, tl.log(1.0 - tl.exp(tail)))


@jit()
def _term(
    x: tl.tensor,
    mean: tl.tensor,
    log_scale: tl.tensor,
    HALF_WIDTH: tl.constexpr,
    LOWEST: tl.constexpr,
    HIGHEST: tl.constexpr,
    KIND: tl.constexpr,
) -> tl.tensor:
    """ln p(x; mean, exp(log_scale)) of each element, float64."""
    inverse = tl.exp(-log_scale)
    if KIND == "bernoulli":
        result = -_softplus(tl.where(x > 0.5, -mean, mean))
    elif KIND == "gaussian":
        residual = (x - mean) * inverse
        result = -0.5 * residual * residual - log_scale - 0.9189385332046727
    else:
        above = (x + HALF_WIDTH - mean) * inverse
        below = (x - HALF_WIDTH - mean) * inverse
        open_above = x > HIGHEST - HALF_WIDTH
        open_below = x < LOWEST + HALF_WIDTH
        if KIND == "discretized_logistic":
            up = tl.where(open_above, 0.0, -_softplus(-above))
            down = tl.where(open_below, 0.0, -_softplus(below))
            inside = _log_minus_expm1(-2.0 * HALF_WIDTH * inverse)
            result = up + down + tl.where(open_above | open_below, 0.0, inside)
        else:
            above = tl.where(open_above, 1e100, above)
            below = tl.where(open_below, -1e100, below)
            flip = below > 0.0
            upper = tl.where(flip, -below, above)
            log_upper = _log_cdf(upper)
            result = log_upper + _log_minus_expm1(_log_cdf(tl.where(flip, -above, below)) - log_upper)
    return result


@jit()
def _row_log_prob_kernel(
    x_ptr: tl.tensor,
    mean_ptr: tl.tensor,
    log_scale_ptr: tl.tensor,
    out_ptr: tl.tensor,
    particles: tl.tensor,
    n: tl.tensor,
    HALF_WIDTH: tl.constexpr,
    LOWEST: tl.constexpr,
    HIGHEST: tl.constexpr,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    r = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, n, BLOCK):
        index = first + tl.arange(0, BLOCK)
        mask = index < n
        x = tl.load(x_ptr + r // particles * n + index, mask=mask, other=0.0).to(tl.float64)
        mean = tl.load(mean_ptr + r * n + index, mask=mask, other=0.0).to(tl.float64)
        log_scale = mean * 0.0
        if log_scale_ptr is not None:
            log_scale = tl.load(log_scale_ptr + r * n + index, mask=mask, other=0.0).to(tl.float64)
        total += tl.where(mask, _term(x, mean, log_scale, HALF_WIDTH, LOWEST, HIGHEST, KIND), 0.0)
    tl.store(out_ptr + r, tl.sum(total))


@jit()
def _categorical_kernel(
    logits_ptr: tl.tensor,
    level_ptr: tl.tensor,
    out_ptr: tl.tensor,
    particles: tl.tensor,
    levels: tl.tensor,
    n: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    r = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, n, BLOCK):
        index = first + tl.arange(0, BLOCK)
        mask = index < n
        column = logits_ptr + r * levels * n + index
        highest = tl.full((BLOCK,), -3.0e38, tl.float32)
        mass = tl.zeros((BLOCK,), tl.float32)
        for level in range(levels):
            x = tl.load(column + level * n, mask=mask, other=0.0).to(tl.float32)
            following = tl.maximum(highest, x)
            mass = mass * tl.exp(highest - following) + tl.exp(x - following)
            highest = following
        chosen = tl.load(level_ptr + r // particles * n + index, mask=mask, other=0)
        x = tl.load(column + chosen * n, mask=mask, other=0.0).to(tl.float32)
        log_prob = x.to(tl.float64) - highest - tl.log(mass.to(tl.float64))
        total += tl.where(mask, log_prob, 0.0)
    tl.store(out_ptr + r, tl.sum(total))


@jit()
def _log_weight_kernel(
    z_ptr: tl.tensor,
    mean_ptr: tl.tensor,
    log_variance_ptr: tl.tensor,
    log_likelihood_ptr: tl.tensor,
    out_ptr: tl.tensor,
    particles: tl.tensor,
    n: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    r = tl.program_id(0).to(tl.int64)
    row = r // particles * n
    total = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, n, BLOCK):
        index = first + tl.arange(0, BLOCK)
        mask = index < n
        z = tl.load(z_ptr + r * n + index, mask=mask, other=0.0).to(tl.float64)
        mean = tl.load(mean_ptr + row + index, mask=mask, other=0.0).to(tl.float64)
        log_variance = tl.load(log_variance_ptr + row + index, mask=mask, other=0.0).to(tl.float64)
        residual = z - mean
        total += residual * residual * tl.exp(-log_variance) + log_variance - z * z
    tl.store(out_ptr + r, tl.load(log_likelihood_ptr + r) + 0.5 * tl.sum(total))


@jit()
def _log_mean_exp_kernel(
    log_weight_ptr: tl.tensor,
    value_ptr: tl.tensor,
    error_ptr: tl.tensor,
    size_ptr: tl.tensor,
    count: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    r = tl.program_id(0).to(tl.int64)
    logs = log_weight_ptr + r * count
    highest = tl.full((BLOCK,), float("-inf"), tl.float64)
    for first in range(0, count, BLOCK):
        index = first + tl.arange(0, BLOCK)
        highest = tl.maximum(highest, tl.load(logs + index, mask=index < count, other=float("-inf")))
    top = tl.max(highest)
    base = tl.where(tl.abs(top) < float("inf"), top, 0.0)
    mass, squares = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    for first in range(0, count, BLOCK):
        index = first + tl.arange(0, BLOCK)
        weight = tl.exp(tl.load(logs + index, mask=index < count, other=float("-inf")) - base)
        mass += weight
        squares += weight * weight
    total = tl.sum(mass)
    mean = total / count
    spread = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, count, BLOCK):
        index = first + tl.arange(0, BLOCK)
        weight = tl.exp(tl.load(logs + index, mask=index < count, other=float("-inf")) - base)
        spread += tl.where(index < count, (weight - mean) * (weight - mean), 0.0)
    variance = tl.sum(spread) / (count - 1.0)
    tl.store(value_ptr + r, top + tl.log(mean))
    tl.store(error_ptr + r, tl.sqrt(variance / count) / mean)
    tl.store(size_ptr + r, tl.where(total > 0.0, total * total / tl.sum(squares), 0.0))


def configuration(n: int) -> tuple[int, int]:
    """Return (terms per pass, warps), by the row's size alone."""
    block = min(512, max(64, 1 << (n - 1).bit_length()))
    return block, max(1, block // 128)


def launch_row_log_prob(
    x: torch.Tensor,
    mean: torch.Tensor,
    log_scale: torch.Tensor | None,
    kind: str,
    half_width: float,
    lowest: float,
    highest: float,
) -> torch.Tensor:
    """:func:`kernels.likelihood.row_log_prob` in Triton."""
    rows, n = len(mean), mean[:1].numel()
    out = mean.new_zeros(rows, dtype=torch.float64)
    if rows and n:
        block, warps = configuration(n)
        spread = None if log_scale is None else log_scale.expand_as(mean).contiguous()
        _row_log_prob_kernel[(rows,)](
            x.contiguous(), mean.contiguous(), spread, out, rows // len(x), n,
            HALF_WIDTH=half_width, LOWEST=lowest, HIGHEST=highest, KIND=kind,
            BLOCK=block, num_warps=warps, enable_fp_fusion=True,
        )  # fmt: skip
    return out


def launch_categorical(logits: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """:func:`kernels.likelihood.categorical_log_prob` in Triton."""
    rows, levels, n = logits.shape
    out = logits.new_zeros(rows, dtype=torch.float64)
    if rows and n:
        block, warps = configuration(n)
        _categorical_kernel[(rows,)](
            logits.contiguous(), level.contiguous(), out, rows // len(level), levels, n,
            BLOCK=block, num_warps=warps, enable_fp_fusion=True,
        )  # fmt: skip
    return out


def launch_log_weight(
    z: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor, log_likelihood: torch.Tensor
) -> torch.Tensor:
    """:func:`kernels.likelihood.gaussian_log_weight` in Triton."""
    rows, particles, n = z.shape
    out = log_likelihood.new_empty((rows, particles), dtype=torch.float64)
    if out.numel():
        block, warps = configuration(n)
        operands = (tensor.contiguous() for tensor in (z, mean, log_variance, log_likelihood.double()))
        _log_weight_kernel[(rows * particles,)](
            *operands, out, particles, n, BLOCK=block, num_warps=warps, enable_fp_fusion=True
        )
    return out


def launch_log_mean_exp(log_weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """:func:`kernels.likelihood.log_mean_exp` in Triton."""
    rows, count = log_weight.shape
    value, error, size = (log_weight.new_empty(rows, dtype=torch.float64) for _ in range(3))
    if rows:
        block, warps = configuration(count)
        _log_mean_exp_kernel[(rows,)](
            log_weight.double().contiguous(), value, error, size, count,
            BLOCK=block, num_warps=warps, enable_fp_fusion=True,
        )  # fmt: skip
    return value, error, size
