"""Reductions of likelihoods: one row of many terms to one number, in float64, in one launch each.

``row_log_prob`` sums the log-probabilities of a row under a factorised law (what a VAE's decoder or the last
step of a diffusion says about x); ``categorical_log_prob`` does so for logits over levels;
``gaussian_log_weight`` forms ln p(x|z) + ln N(z; 0, I) - ln N(z; mu, sigma^2), whose 2 pi cancel;
``log_mean_exp`` reduces the weights (Burda et al., Importance weighted autoencoders, 2016, eq. 8) with their
standard error and effective sample size.

Bytes per element: row_log_prob 8 or 12 (x, mean, log_scale; x once where K particles share it), categorical
4 C, gaussian_log_weight 4. Floor at 64 particles x 32 rows x 3,072: 50 MB, 12 us at 4.3 TB/s. Arithmetic is
float64, which data-centre GPUs run at half the float32 rate: it, not memory, bounds the discretised kinds
(some 600 instructions per element by their machine code, 0.2 ms at that size). No order depends on the
batch. Measured: not yet on a GPU.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch

from kernels._likelihood_kernels import (
    KINDS,
    launch_categorical,
    launch_log_mean_exp,
    launch_log_weight,
    launch_row_log_prob,
)
from kernels._registry import register
from kernels._rowwise import row_sums

_HALF_LOG_2PI: Final = 0.5 * math.log(2.0 * math.pi)


def row_log_prob(
    x: torch.Tensor,
    mean: torch.Tensor,
    log_scale: torch.Tensor | None,
    kind: str,
    half_width: float = 0.0,
    lowest: float = -math.inf,
    highest: float = math.inf,
) -> torch.Tensor:
    """Return float64 [rows * particles]: sum over n of ln p(x; mean, log_scale) in nats, model coordinates.

    ``mean`` and ``log_scale`` are [rows * particles, n], ``x`` [rows, n], each row shared by its particles
    (any float dtype). ``kind``: ``gaussian`` (a density); ``discretized_gaussian`` (Ho et al., 2020, eq. 13)
    and ``discretized_logistic`` (Salimans et al., 2017, eq. 2), the mass within ``half_width``, open beyond
    the levels ``lowest`` and ``highest``; ``bernoulli`` (``mean`` are logits of x > 1/2, no log_scale).
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, not one of {', '.join(KINDS)}")
    return _row_log_prob(  # type: ignore[no-any-return]
        x, mean, log_scale, kind, half_width, lowest, highest
    )


def categorical_log_prob(logits: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Return float64 [rows * particles]: sum over n of log softmax(logits)[level].

    ``logits`` is [rows * particles, levels, n], any float dtype; ``level`` int64 [rows, n] in [0, levels).
    """
    return _categorical(logits, level)  # type: ignore[no-any-return]


def gaussian_log_weight(
    z: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor, log_likelihood: torch.Tensor
) -> torch.Tensor:
    """Return float64 [rows, K]: ln p(x|z) + ln N(z; 0, I) - ln N(z; mean, exp(log_variance)).

    ``z`` is [rows, K, D], ``mean`` and ``log_variance`` [rows, D], ``log_likelihood`` [rows, K] float64.
    """
    return _log_weight(z, mean, log_variance, log_likelihood)  # type: ignore[no-any-return]


def log_mean_exp(log_weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (value, standard error, effective sample size), float64 [rows], of float64 [rows, K].

    The error is the delta method's sd(w) / (sqrt(K) mean(w)), NaN for K = 1; the size is
    (sum w)^2 / sum w^2 (Kong, 1992). Rows without weight: -inf, NaN, 0.
    """
    return _log_mean_exp(log_weight)  # type: ignore[no-any-return]


def row_log_prob_reference(
    x: torch.Tensor,
    mean: torch.Tensor,
    log_scale: torch.Tensor | None,
    kind: str,
    half_width: float,
    lowest: float,
    highest: float,
) -> torch.Tensor:
    """:func:`row_log_prob` in torch, float64."""
    value, centre = _repeated(x.double(), len(mean)), mean.double()
    if kind == "bernoulli":
        return row_sums(torch.nn.functional.logsigmoid(torch.where(value > 0.5, centre, -centre)))
    assert log_scale is not None
    log_spread = log_scale.double().expand_as(centre)
    spread = log_spread.exp()
    if kind == "gaussian":
        return row_sums(-0.5 * ((value - centre) / spread).square() - log_spread - _HALF_LOG_2PI)
    above = torch.where(value > highest - half_width, math.inf, (value + half_width - centre) / spread)
    below = torch.where(value < lowest + half_width, -math.inf, (value - half_width - centre) / spread)
    mass = _logistic_mass if kind == "discretized_logistic" else _normal_mass
    return row_sums(mass(below, above))


def _logistic_mass(below: torch.Tensor, above: torch.Tensor) -> torch.Tensor:
    """ln(S(above) - S(below)) = ln S(above) + ln S(-below) + ln(1 - exp(below - above)), S the sigmoid."""
    log_sigmoid = torch.nn.functional.logsigmoid
    return log_sigmoid(above) + log_sigmoid(-below) + torch.log(-torch.expm1(below - above))


def _normal_mass(below: torch.Tensor, above: torch.Tensor) -> torch.Tensor:
    """ln(Phi(above) - Phi(below)), moved by symmetry to the left tail, where log_ndtr keeps its digits."""
    flip = below > 0
    above, below = torch.where(flip, -below, above), torch.where(flip, -above, below)
    log_above: torch.Tensor = torch.special.log_ndtr(above)
    log_below: torch.Tensor = torch.special.log_ndtr(below)
    return log_above + torch.log(-torch.expm1(log_below - log_above))


def _repeated(x: torch.Tensor, rows: int) -> torch.Tensor:
    return x.repeat_interleave(rows // max(1, len(x)), dim=0)


def categorical_reference(logits: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """:func:`categorical_log_prob` in torch, float64."""
    law = torch.log_softmax(logits.double(), dim=1)
    chosen = _repeated(level, len(logits)).unsqueeze(1)
    return row_sums(law.gather(1, chosen).squeeze(1))


def log_weight_reference(
    z: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor, log_likelihood: torch.Tensor
) -> torch.Tensor:
    """:func:`gaussian_log_weight` in torch, float64."""
    mu, log_var, latent = mean.double().unsqueeze(1), log_variance.double().unsqueeze(1), z.double()
    terms = (latent - mu).square() * (-log_var).exp() + log_var - latent.square()
    divergence = row_sums(terms.flatten(0, 1)).reshape(log_likelihood.shape)
    return log_likelihood.double() + 0.5 * divergence


@np.errstate(all="ignore")
def log_mean_exp_reference(log_weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """:func:`log_mean_exp` in torch, float64."""
    logs, count = log_weight.double(), log_weight.shape[1]
    top = logs.amax(dim=1)
    weights = (logs - torch.where(top.isfinite(), top, 0.0).unsqueeze(1)).exp()
    total = row_sums(weights)
    mean = total / count
    size = torch.where(total > 0, total.square() / row_sums(weights.square()), 0.0)
    spread = row_sums((weights - mean.unsqueeze(1)).square()) / (count - 1) if count > 1 else total * math.nan
    return top + torch.log(total) - math.log(count), (spread / count).sqrt() / mean, size


def _fake_rows(x: torch.Tensor, mean: torch.Tensor, *options: object, **named: object) -> torch.Tensor:
    return mean.new_empty(len(mean), dtype=torch.float64)


def _fake_log_mean_exp(log_weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = len(log_weight)
    value, error, size = (log_weight.new_empty(rows, dtype=torch.float64) for _ in range(3))
    return value, error, size


_row_log_prob = register(
    "row_log_prob(Tensor x, Tensor mean, Tensor? log_scale, str kind, float half_width, float lowest, "
    "float highest) -> Tensor",
    row_log_prob_reference,
    launch_row_log_prob,
    _fake_rows,
)
_categorical = register(
    "categorical_log_prob(Tensor logits, Tensor level) -> Tensor",
    categorical_reference,
    launch_categorical,
    lambda logits, level: logits.new_empty(len(logits), dtype=torch.float64),
)
_log_weight = register(
    "gaussian_log_weight(Tensor z, Tensor mean, Tensor log_variance, Tensor log_likelihood) -> Tensor",
    log_weight_reference,
    launch_log_weight,
    lambda z, mean, log_variance, log_likelihood: log_likelihood.new_empty(
        log_likelihood.shape, dtype=torch.float64
    ),
)
_log_mean_exp = register(
    "log_mean_exp(Tensor log_weight) -> (Tensor, Tensor, Tensor)",
    log_mean_exp_reference,
    launch_log_mean_exp,
    _fake_log_mean_exp,
)
