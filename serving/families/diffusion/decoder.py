"""The last step as a distribution: the probability of a data value given an estimate of it."""

from __future__ import annotations

import numpy as np
import torch
from torch.special import log_ndtr

from export.package.schema import DataSpace
from serving.families import units
from serving.families.diffusion.process import Floats


def log_decoder(spec: DataSpace, x0: torch.Tensor, mean: torch.Tensor, sd: float) -> Floats:
    """ln p(x0 | mean) per element [rows, elements] float64, in nats of the data space.

    Levels: the mass of N(mean, sd^2) within half a level, the outermost levels open to their sides, so
    that all levels sum to one (Ho et al. 2020, eq. 13). Real data: the density, per unit of data.
    """
    value, centre = x0.double().flatten(1), mean.double().flatten(1)
    width = torch.from_numpy(np.broadcast_to(np.abs(units.scale(spec)), spec.shape).reshape(-1).copy())
    if not spec.levels:
        density = -0.5 * ((value - centre) / sd) ** 2 - np.log(sd * np.sqrt(2 * np.pi))
        return np.asarray((density + width.log()).numpy(), np.float64)
    return np.asarray(_mass(spec, value, centre, width, sd).numpy(), np.float64)


def _mass(
    spec: DataSpace, value: torch.Tensor, centre: torch.Tensor, width: torch.Tensor, sd: float
) -> torch.Tensor:
    ends = units.to_model(spec, np.stack([np.zeros(spec.shape), np.full(spec.shape, spec.levels - 1.0)]))
    low, high = torch.aminmax(ends.double().flatten(1), dim=0)
    upper = torch.where(value > high - width / 4, torch.inf, (value - centre + width / 2) / sd)
    lower = torch.where(value < low + width / 4, -torch.inf, (value - centre - width / 2) / sd)
    # By symmetry the interval is moved to the side of the left tail, where log_ndtr keeps its digits.
    flip = lower > 0
    above = torch.where(flip, -lower, upper)
    below = torch.where(flip, -upper, lower)
    log_above, log_below = log_ndtr(above), log_ndtr(below)
    mass: torch.Tensor = log_above + torch.log1p(-torch.exp(log_below - log_above))
    return mass
