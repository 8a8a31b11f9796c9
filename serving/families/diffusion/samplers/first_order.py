"""One network run per step: DDIM with any eta, Euler and Euler-ancestral.

Along a step from (alpha, sigma) to (alpha', sigma') the noise that explains x is kept up to the fresh
noise d: x' = alpha' x0 + sqrt(sigma'^2 - d^2) (x - alpha x0) / sigma + d z (Song et al. 2021, eq. 12).
For d = 0 this is Euler's method in x / alpha over sigma / alpha (Karras et al. 2022, alg. 1), for
flows over s; d^2 = sigma'^2 (sigma^2 - (alpha/alpha')^2 sigma'^2) / sigma^2 gives Euler-ancestral.
"""

from __future__ import annotations

import numpy as np

from serving.families.diffusion.plan import Lines
from serving.families.diffusion.process import Floats, Levels


def fresh_variance(here: Levels, after: Levels) -> Floats:
    """sigma^2 - (alpha/alpha')^2 sigma'^2: what the forward process adds between two levels."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(here.sigma**2 - (here.alpha / after.alpha) ** 2 * after.sigma**2, np.float64)


def posterior_variance(here: Levels, after: Levels) -> Floats:
    """Variance of x' given x and x0; 0 on the way to the data."""
    return np.asarray(fresh_variance(here, after) * after.sigma**2 / here.sigma**2, np.float64)


def ddim(levels: Levels, eta: float = 0.0) -> Lines:
    """Song, Meng and Ermon 2021 (DDIM): eta 0 deterministic, eta 1 the ancestral sampler."""
    return ddim_pairs(levels[:-1], levels[1:], eta)


def ddim_pairs(here: Levels, after: Levels, eta: float = 0.0) -> Lines:
    """The same for any pairs of levels."""
    d = eta * np.sqrt(posterior_variance(here, after)) if eta else np.zeros_like(here.sigma)
    a = np.sqrt(np.maximum(after.sigma**2 - d**2, 0.0)) / here.sigma
    return Lines(here, after, a, after.alpha - here.alpha * a, d)


def euler(levels: Levels) -> Lines:
    """Karras et al. 2022, algorithm 1 without churn; for flows Euler's method over s."""
    return ddim(levels, 0.0)


def euler_ancestral(levels: Levels) -> Lines:
    """Euler down to sigma_down, then noise sigma_up (k-diffusion's ancestral step)."""
    return ddim(levels, 1.0)
