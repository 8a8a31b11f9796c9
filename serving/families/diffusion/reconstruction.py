"""Denoising error over middle noise levels (Graham et al. 2023): what the model would have put there."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from serving.families.diffusion.asking import denoised, per_row, squares
from serving.families.diffusion.bound import step_noise
from serving.families.diffusion.denoiser import Denoiser
from serving.families.diffusion.process import Floats, Levels, Process
from serving.families.request import Request
from serving.families.rows import Tensors, Yield

LEVELS = 16
RATIOS = 0.2, 5.0  # relative noise: enough to hide detail, not enough to hide all


def middle_levels(process: Process) -> Levels:
    """Levels between the two ratios, geometric."""
    ratio = np.geomspace(*RATIOS, LEVELS)
    if process.is_flow:
        return process.at_flow(ratio / (1.0 + ratio))
    low, high = process.ratio_range
    return process.at_ratio(np.clip(ratio, low, high))


def reconstruction_loss(denoiser: Denoiser, request: Request) -> Generator[Yield, Tensors, Floats]:
    """Mean over levels of the squared error of x0 over the noise's share of it [rows, elements]."""
    assert request.data is not None
    which = np.tile(np.arange(LEVELS), request.rows)
    levels = middle_levels(denoiser.process)[which]
    x0 = denoiser.to_model(request.data).repeat_interleave(LEVELS, dim=0)
    noise = step_noise(request, which, np.zeros_like(which), LEVELS, denoiser.elements).reshape(x0.shape)
    noisy = per_row(levels.alpha, x0) * x0 + per_row(levels.sigma, x0) * noise
    conditions = denoiser.conditions(request, LEVELS)
    estimate = yield from denoised(denoiser, noisy, levels, conditions, denoiser.diffusion.clip_default)
    ratio = levels.ratio[:, None]
    losses = squares(estimate - x0) * (1.0 + ratio**2) / ratio**2
    return np.asarray(losses.reshape(request.rows, LEVELS, -1).mean(axis=1), np.float64)
