"""EDM's stochastic sampler: before every step some noise is added, then Heun's step takes more away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from serving.families.diffusion.plan import Lines
from serving.families.diffusion.process import Levels
from serving.families.diffusion.samplers.heun import heun_pairs

NOISE_INFLATION = 1.003  # S_noise of Karras et al. 2022, table 5 (ImageNet-64)


def edm_stochastic(levels: Levels) -> Lines:
    """Karras et al. 2022, algorithm 2, in x / alpha and relative noise.

    ``levels`` are n levels and the clean one, then the n levels to which the first n are churned
    (``grid``). The churn of a level belongs to the line that arrives there, so that the network is asked
    where it ends; that of the first level is in the start already.
    """
    steps = len(levels) // 2
    here, after, peak = levels[:steps], levels[1 : steps + 1], levels[steps + 1 :]
    lines = heun_pairs(peak, after)
    arrives = np.arange(1, len(lines.a) - 1, 2)  # the last line of every step but the last
    up = (peak.alpha / here.alpha)[1:]
    fresh = np.sqrt(np.maximum(peak.ratio**2 - here.ratio**2, 0.0))[1:]
    a, b, c, d = lines.a, lines.b, lines.c, lines.d
    a[arrives], b[arrives], c[arrives] = up * a[arrives], up * b[arrives], up[:, None] * c[arrives]
    d[arrives] = NOISE_INFLATION * peak.alpha[1:] * fresh
    source = np.arange(len(a)) // 2
    source[arrives] += steps + 1
    return replace(lines, after=after.followed_by(peak)[source])
