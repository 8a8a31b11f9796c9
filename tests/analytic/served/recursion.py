"""Affine recursions: the exact law of a sampler's last state where the denoiser is a Gaussian's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from tests.analytic.diffusion.gaussian import GEOMETRIC
from tests.analytic.served.packages import alphas
from tests.analytic.served.truth import Floats, Normal

Levels = list[tuple[float, float]]  # (alpha, sigma), noisiest first, the data last
Step = Callable[[float, float, float, float], tuple[float, float, float]]


def recursion(data: Normal, levels: Levels, step: Step, initial_sd: float) -> Normal:
    """Law of the last state of x' = a x + b E[x0 | x] + c z from N(0, initial_sd^2 I)."""
    eye = np.eye(len(data.mean))
    mean, covariance = 0.0 * data.mean, initial_sd**2 * eye
    for (alpha, sigma), (alpha_, sigma_) in pairwise(levels):
        a, b, c = step(alpha, sigma, alpha_, sigma_)
        gain = gain_of(data, alpha, sigma)
        move = a * eye + b * gain
        mean = move @ mean + b * (eye - alpha * gain) @ data.mean
        covariance = move @ covariance @ move.T + c**2 * eye
    return Normal(mean, covariance)


def gain_of(data: Normal, alpha: float, sigma: float) -> Floats:
    """K with E[x0 | x] = mean + K (x - alpha mean)."""
    noise = sigma**2 * np.eye(len(data.mean))
    return np.asarray(alpha * data.covariance @ np.linalg.inv(alpha**2 * data.covariance + noise), np.float64)


def deterministic(alpha: float, sigma: float, alpha_: float, sigma_: float) -> tuple[float, float, float]:
    """alpha' x0 + sigma' e: DDIM, and Euler's method along straight paths."""
    return sigma_ / sigma, alpha_ - alpha * sigma_ / sigma, 0.0


def posterior(alpha: float, sigma: float, alpha_: float, sigma_: float) -> tuple[float, float, float]:
    """q(x' | x, x0) with the posterior's own variance (Ho et al. 2020, eq. 7); none on the last step."""
    ratio = alpha / alpha_
    added = sigma**2 - ratio**2 * sigma_**2
    return ratio * sigma_**2 / sigma**2, alpha_ * added / sigma**2, np.sqrt(added) * sigma_ / sigma


def trailing(steps: int) -> list[int]:
    """Training steps 999, ... of 1000, evenly spaced from the last."""
    return [round(1000 - k * 1000 / steps) - 1 for k in range(steps)]


def vp(steps: int) -> Levels:
    """Levels of the linear schedule."""
    alpha, sigma = alphas()
    return [*((float(alpha[t]), float(sigma[t])) for t in trailing(steps)), (1.0, 0.0)]


def ve(steps: int) -> Levels:
    """Levels of the geometric schedule."""
    return [*((1.0, GEOMETRIC.sigmas[t]) for t in trailing(steps)), (1.0, 0.0)]


def flow(steps: int) -> Levels:
    """Levels of straight paths."""
    return [(1.0 - s, s) for s in np.linspace(1.0, 0.0, steps + 1)]
