"""The reverse Markov chain: the posterior q(x' | x, x0) with its small or its large variance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from serving.families.diffusion.plan import Lines
from serving.families.diffusion.process import Levels
from serving.families.diffusion.samplers.first_order import fresh_variance, posterior_variance


def learned_range(levels: Levels) -> Lines:
    """Nichol and Dhariwal 2021, eq. 15: the network interpolates ln variance between small and large."""
    lines = ancestral(levels)
    large = np.sqrt(fresh_variance(lines.asked, lines.after))
    noisy = lines.d > 0.0
    return replace(lines, spread=np.log(np.where(noisy, large, 1.0) / np.where(noisy, lines.d, 1.0)))


def ancestral(levels: Levels, large: bool = False) -> Lines:
    """Ho et al. 2020, eq. 6-7. Small: the posterior's variance; large: all that the forward step added.

    Under VE the large variance is Song et al. 2021's reverse diffusion (algorithm 2), the small one
    their ancestral sampler (eq. 47). No noise on the way to the data.
    """
    return ancestral_pairs(levels[:-1], levels[1:], large)


def ancestral_pairs(here: Levels, after: Levels, large: bool = False) -> Lines:
    """The same for any pairs of levels."""
    fresh = fresh_variance(here, after)
    a = here.alpha / after.alpha * after.sigma**2 / here.sigma**2
    variance = fresh if large else posterior_variance(here, after)
    d = np.where(after.sigma > 0.0, np.sqrt(variance), 0.0)
    return Lines(here, after, a, after.alpha * fresh / here.sigma**2, d)
