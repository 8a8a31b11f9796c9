"""Second order from the last x0: DPM-Solver++(2M) and its SDE form."""

from __future__ import annotations

import numpy as np

from serving.families.diffusion.plan import HISTORY, Lines
from serving.families.diffusion.process import Floats, Levels


def dpmpp_2m(levels: Levels, stochastic: bool = False) -> Lines:
    """Lu et al. 2022 (DPM-Solver++), algorithm 2; the SDE form is their eq. 19.

    With l = ln(alpha / sigma), h = l' - l, r = h_previous / h: x' = (sigma'/sigma) k x + alpha' (1 - k^2
    or k) D, k = e^-h, D = (1 + 1/2r) x0 - (1/2r) x0_previous. First order in the first step and on the
    way to the data, where h is infinite.
    """
    here, after = levels[:-1], levels[1:]
    with np.errstate(divide="ignore"):
        step = np.log(here.ratio) - np.log(after.ratio)  # [n], inf where a level has no signal or no noise
    decay = np.exp(-step)
    if stochastic:
        a = after.sigma / here.sigma * decay
        towards = after.alpha * -np.expm1(-2.0 * step)
        d = after.sigma * np.sqrt(-np.expm1(-2.0 * step))
    else:
        a = after.sigma / here.sigma
        towards = after.alpha * -np.expm1(-step)
        d = np.zeros_like(a)
    extrapolation = _extrapolation(step)
    c = np.zeros((len(a), HISTORY))
    c[:, 0] = -towards * extrapolation
    return Lines(here, after, a, towards * (1.0 + extrapolation), d, c)


def _extrapolation(step: Floats) -> Floats:
    """1 / (2 r) per step; 0 where there is no usable previous step."""
    weights = np.zeros_like(step)
    usable = np.isfinite(step[1:]) & np.isfinite(step[:-1])
    weights[1:][usable] = step[1:][usable] / (2.0 * step[:-1][usable])
    return weights
