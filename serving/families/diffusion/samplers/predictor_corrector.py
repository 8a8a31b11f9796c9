"""Langevin correctors between the steps of a predictor."""

from __future__ import annotations

import numpy as np

from serving.families.diffusion.plan import Lines
from serving.families.diffusion.process import Levels
from serving.families.diffusion.samplers.ancestral import ancestral

RENEWED = 0.1  # share of the noise variance that a corrector renews: r = 0.16 of Song et al. 2021


def predictor_corrector(levels: Levels, corrections: int = 1, renewed: float = RENEWED) -> Lines:
    """Song et al. 2021, algorithms 4 and 5: at every level some correctors, then an ancestral step.

    Their corrector x' = x + s d + sqrt(2 d) z takes d = 2 (r |z| / |s|)^2 from norms averaged over the
    batch. A score's norm is close to |z| / sigma, hence d = 2 (r sigma)^2, which couples no rows; and
    x' = alpha x0 + sqrt(1 - v) (x - alpha x0) + sqrt(v) sigma z with v = 2 d / sigma^2 is the same step to
    first order in v, but leaves the amount of noise exactly as it was.
    """
    predictor = ancestral(levels)
    steps, each = len(predictor.a), corrections + 1
    source = np.repeat(np.arange(steps), each)
    predicts = np.arange(steps * each) % each == corrections
    asked = levels[source]
    kept = np.sqrt(1.0 - renewed)
    a = np.where(predicts, predictor.a[source], kept)
    b = np.where(predicts, predictor.b[source], asked.alpha * (1.0 - kept))
    d = np.where(predicts, predictor.d[source], np.sqrt(renewed) * asked.sigma)
    return Lines(asked, levels[source + predicts], a, b, d)
