"""The last step as a distribution: the probability of a data value given an estimate of it."""

from __future__ import annotations

import numpy as np
import torch
from torch.special import log_ndtr

from export.package.schema import DataSpace
from serving.families import units
from serving.families.diffusion.process import Floats


def log_decoder(spec: DataSpace, x0: torch.Tensor, mean: torch.Tensor, sd: float | Floats) -> Floats:
    """ln p(x0 | mean) per element [rows, elements] float64, in nats of the data space.

    ``x0`` and ``mean`` [rows, *shape] are model coordinates, and so is ``sd``, one or [rows, 1 or elements].
    Levels: the mass of N(mean, sd^2) within half a level, the outermost levels open to their sides, so that
    all levels sum to one (Ho et al. 2020, eq. 13). Real data: the density, per unit of data.
    """
    scale, shift = (
        np.broadcast_to(v, spec.shape).reshape(-1) for v in (units.scale(spec), units.shift(spec))
    )
    value, centre = (v.double().flatten(1).numpy() for v in (x0, mean))
    spread = sd / np.abs(scale)
    value, centre = (value - shift) / scale, (centre - shift) / scale  # data space, float64
    if not spec.levels:
        return np.asarray(-0.5 * ((value - centre) / spread) ** 2 - np.log(spread * np.sqrt(2 * np.pi)))
    return _mass(np.rint(value), centre, spread, spec.levels)


def _mass(level: Floats, centre: Floats, spread: Floats, levels: int) -> Floats:
    upper = np.where(level >= levels - 1, np.inf, (level + 0.5 - centre) / spread)
    lower = np.where(level <= 0, -np.inf, (level - 0.5 - centre) / spread)
    # By symmetry the interval is moved to the side of the left tail, where log_ndtr keeps its digits.
    flip = lower > 0
    above, below = np.where(flip, -lower, upper), np.where(flip, -upper, lower)
    log_above, log_below = (log_ndtr(torch.from_numpy(v)).numpy() for v in (above, below))
    return np.asarray(log_above + np.log1p(-np.exp(log_below - log_above)), np.float64)
