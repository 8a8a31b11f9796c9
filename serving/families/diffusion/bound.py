"""The variational bound of the ancestral sampler: ln p(x) >= prior + steps + decoder.

Ho et al. 2020, eq. 5; Nichol and Dhariwal 2021 for respaced chains. It is written for any (alpha, sigma),
so that VE and flow models have the bound of their own reverse chain:
prior -KL(q(x_T | x) || N(0, S^2)), steps -sum KL(q(x' | x_t, x) || N(a x_t + b x0^, v)), decoder
ln P(x | x_1), whose standard deviation is the noise of the lowest level relative to its signal.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.philox import STREAM_STEP, STREAMS_PER_PARTICLE, philox_normal
from serving.families.diffusion.asking import data_estimate, per_row, squares, whole_outputs
from serving.families.diffusion.decoder import log_decoder
from serving.families.diffusion.denoiser import Denoiser, rows_of
from serving.families.diffusion.grid import levels_of
from serving.families.diffusion.learned import decoder_range, negative_step
from serving.families.diffusion.process import Floats, Levels
from serving.families.diffusion.samplers.ancestral import ancestral, learned_range
from serving.families.diffusion.samplers.first_order import posterior_variance
from serving.families.request import Request
from serving.families.rows import Tensors, Yield


@dataclass(frozen=True)
class Bound:
    """Terms per row and element [rows, elements], nats in data space; ``error`` [rows] of their sum."""

    prior: Floats
    steps: Floats
    decoder: Floats
    error: Floats

    @property
    def map(self) -> Floats:
        """The bound by element [rows, elements]."""
        return self.prior + self.steps + self.decoder


@dataclass(frozen=True)
class Chain:
    """The reverse chain of the bound: levels [n], weights of the squared error, constants per element."""

    levels: Levels
    weight: Floats  # [n - 1] nats per squared error of x0
    constant: float  # nats per element, of variances that differ from the posterior's
    decoder_sd: float
    prior_sd: float
    spread: Floats | None = None  # [n] of a learned variance, the decoder's last

    @classmethod
    def of(cls, denoiser: Denoiser, steps: int) -> Chain:
        """The respaced ancestral sampler with the package's variance."""
        levels = levels_of(denoiser.process, steps, "trailing")
        large = denoiser.diffusion.variance == "fixed_large"
        lines = ancestral(levels, large)
        if denoiser.learns_variance:
            return cls._learned(denoiser, levels)
        true = posterior_variance(levels[:-1], levels[1:])[:-1]
        own = lines.d[:-1] ** 2
        constant = 0.5 * float(np.sum(np.log(own / true) + true / own - 1.0))
        noisy = levels[:-1]
        decoder_sd = float(noisy.sigma[-1] / noisy.alpha[-1])
        return cls(noisy, lines.b[:-1] ** 2 / (2.0 * own), constant, decoder_sd, denoiser.process.initial_sd)

    @classmethod
    def _learned(cls, denoiser: Denoiser, levels: Levels) -> Chain:
        """Weights and decoder at the smallest variances that the network may choose."""
        lines = learned_range(levels)
        decoder_sd, last = decoder_range(lines)
        assert lines.spread is not None
        spread = np.append(lines.spread[:-1], last)
        weight = lines.b[:-1] ** 2 / (2.0 * lines.d[:-1] ** 2)
        return cls(levels[:-1], weight, 0.0, decoder_sd, denoiser.process.initial_sd, spread)


@dataclass(frozen=True)
class Noises:
    """Whose noise is drawn: noise rows [rows] and repetitions [draws]."""

    seed: int
    rows: NDArray[np.int64]
    draws: NDArray[np.int64]

    def of(self, part: np.ndarray, n: int) -> torch.Tensor:
        """Unit normals [rows * levels * draws, n] of the step stream for the levels ``part``."""
        line = np.tile(np.repeat(part, len(self.draws)), len(self.rows))
        draw = np.tile(self.draws, len(self.rows) * len(part))
        return _normals(self.seed, np.repeat(self.rows, len(part) * len(self.draws)), line, draw, n)


def bound(
    denoiser: Denoiser,
    request: Request,
    steps: int,
    draws: int,
    first_draw: int = 0,
    rows: NDArray[np.int64] | None = None,
) -> Generator[Yield, Tensors, Bound]:
    """Estimate with ``draws`` independent noises per level; every level is asked for every row.

    ``rows``: of the request (None: all), ``first_draw``: how many draws they had before.
    """
    assert request.data is not None
    chain = Chain.of(denoiser, steps)
    numbers = rows_of(request)
    if rows is not None:
        numbers = numbers[rows]
        conditions = {name: value[rows] for name, value in request.conditions.items()}
        request = replace(request, rows=len(rows), data=request.data[rows], conditions=conditions)
    assert request.data is not None
    noises = Noises(request.seed, numbers, first_draw + np.arange(draws))
    x0 = denoiser.to_model(request.data)
    levels = len(chain.levels)
    errors = np.zeros((request.rows, levels, denoiser.elements))
    spread = np.zeros((request.rows, levels))  # variance of each level's mean
    block = max(1, 2**20 // max(1, request.rows * draws * denoiser.elements))
    for first in range(0, levels, block):
        part = np.arange(first, min(first + block, levels))
        losses = yield from _losses(denoiser, request, chain, x0, part, noises)
        errors[:, part] = losses.mean(axis=2)
        if draws > 1:
            spread[:, part] = losses.sum(axis=3).var(axis=2, ddof=1) / draws
    prior = _prior(chain, x0)
    error = np.sqrt(spread.sum(axis=1)) if draws > 1 else np.full(request.rows, np.nan)
    return Bound(prior, -errors[:, :-1].sum(axis=1) - chain.constant, -errors[:, -1], error)


def _losses(
    denoiser: Denoiser, request: Request, chain: Chain, x0: torch.Tensor, part: np.ndarray, noises: Noises
) -> Generator[Yield, Tensors, Floats]:
    """Minus the terms of the levels ``part`` [rows, part, draws, elements]; the last level is the decoder."""
    draws = len(noises.draws)
    times = len(part) * draws
    which = np.tile(np.repeat(part, draws), request.rows)  # [rows * part * draws]
    levels = chain.levels[which]
    clean = x0.repeat_interleave(times, dim=0)
    noise = noises.of(part, denoiser.elements)
    noisy = per_row(levels.alpha, clean) * clean + per_row(levels.sigma, clean) * noise.reshape(clean.shape)
    output = yield from whole_outputs(denoiser, noisy, levels, denoiser.conditions(request, times))
    prediction = output[:, : denoiser.elements].reshape(noisy.shape)
    estimate = data_estimate(denoiser, noisy, levels, prediction, denoiser.diffusion.clip_default)
    weight = np.append(chain.weight, 0.0)[which][:, None]
    squared, spread = squares(estimate - clean), _spread(chain, which, output[:, denoiser.elements :])
    losses = negative_step(squared, weight, spread) if chain.spread is not None else squared * weight
    last = np.flatnonzero(which == len(chain.levels) - 1)
    if len(last):
        sd = chain.decoder_sd * np.exp(spread[last])
        losses[last] = -log_decoder(denoiser.data, clean[last], estimate[last], sd)
    return np.asarray(losses.reshape(request.rows, len(part), draws, denoiser.elements), np.float64)


def _spread(chain: Chain, which: np.ndarray, said: torch.Tensor) -> Floats:
    """ln of the chosen over the smallest standard deviation [rows, elements], or [rows, 1] zeros."""
    if chain.spread is None:
        return np.zeros((len(which), 1))
    return np.asarray(chain.spread[which][:, None] * (said.double().numpy() + 1.0) / 2.0, np.float64)


def step_noise(request: Request, line: np.ndarray, draw: np.ndarray, times: int, n: int) -> torch.Tensor:
    """Unit normals [rows * times, n] of the step stream: ``line`` the level, ``draw`` the repetition."""
    return _normals(request.seed, np.repeat(rows_of(request), times), line, draw, n)


def _normals(seed: int, row: np.ndarray, line: np.ndarray, draw: np.ndarray, n: int) -> torch.Tensor:
    key = torch.from_numpy(np.full(len(line), np.uint64(seed).astype(np.int64)))
    stream = torch.from_numpy(STREAM_STEP + STREAMS_PER_PARTICLE * draw)
    return philox_normal(key, torch.from_numpy(row), torch.from_numpy(line), stream, n)


def _prior(chain: Chain, x0: torch.Tensor) -> Floats:
    """-KL(N(alpha x0, sigma^2) || N(0, S^2)) per element, at the noisiest level."""
    alpha, sigma, spread = chain.levels.alpha[0], chain.levels.sigma[0], chain.prior_sd
    ratio = (sigma / spread) ** 2
    return np.asarray(-0.5 * (ratio - 1.0 - np.log(ratio) + (alpha / spread) ** 2 * squares(x0)), np.float64)
