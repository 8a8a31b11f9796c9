"""Second order by a second look: Heun's method."""

from __future__ import annotations

import numpy as np

from serving.families.diffusion.plan import HISTORY, Lines
from serving.families.diffusion.process import Levels
from serving.families.diffusion.samplers.first_order import ddim_pairs


def heun(levels: Levels, up: bool = False) -> Lines:
    """Karras et al. 2022, algorithm 1; for flows Heun's method over s. The step to the data is Euler's.

    The first line goes along the straight line to its x0, so its derivative is that of the arrival,
    and x' = x1 + (h / 2) (d2 - d1) needs only the two x0: x1 + w (x0_1 - x0_2).
    ``up``: towards noise, where the last step is of second order too.
    """
    return heun_pairs(levels[:-1], levels[1:], up)


def heun_pairs(here: Levels, after: Levels, up: bool = False) -> Lines:
    """The same for any pairs of levels."""
    first = ddim_pairs(here, after)
    steps = len(first.a)
    source = np.repeat(np.arange(steps), 2)[: None if up else -1]
    corrects = np.arange(len(source)) % 2 == 1
    weight = _correction(here[source], after[source])
    a = np.where(corrects, 1.0, first.a[source])
    b = np.where(corrects, -weight, first.b[source])
    c = np.zeros((len(source), HISTORY))
    c[corrects, 0] = weight[corrects]
    asked = here.followed_by(after)[source + steps * corrects]
    return Lines(asked, after[source], a, b, np.zeros(len(source)), c)


def _correction(here: Levels, after: Levels) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(h / 2) / sigma' in the coordinate in which paths are straight lines, times the scale of x'.

    x / alpha over sigma / alpha (VP, VE), and (1 - s) x0 + s e over s (flow), where alpha + sigma = 1.
    """
    straight = np.allclose(here.alpha + here.sigma, 1.0, atol=1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        if straight:
            return np.asarray((after.sigma - here.sigma) / (2.0 * after.sigma), np.float64)
        weight = after.alpha * (after.ratio - here.ratio) / (2.0 * after.ratio)
        return np.asarray(weight, np.float64)
