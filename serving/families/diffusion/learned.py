"""A learned variance: the network's second half of outputs, v, says where ln variance lies in its range.

Nichol and Dhariwal 2021, eq. 15: ln variance = v' ln beta + (1 - v') ln beta_tilde with v' = (v + 1) / 2.
A network is not bound to [-1, 1]; what it says beyond is taken as it is.
"""

from __future__ import annotations

import numpy as np
import torch

from serving.families.diffusion.plan import Lines
from serving.families.diffusion.process import Floats


def noise_factor(said: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """What multiplies the smallest noise: exp(spread v'), [rows, n] float32.

    ``said`` [rows, n] is v, ``spread`` [rows, 1] the log of the largest over the smallest standard
    deviation. In float64: the bits then do not depend on how exp is vectorised over the rows at hand.
    """
    return torch.exp(spread.double() * (said.double() + 1.0) / 2.0).float()


def decoder_range(lines: Lines) -> tuple[float, float]:
    """Smallest standard deviation of the last step, and the log of the largest over it.

    The last step has no posterior variance: its neighbour's takes the place, as in the paper's code.
    """
    large = float(lines.asked.sigma[-1])
    small = float(lines.d[-2]) if len(lines.d) > 1 else large
    return small, float(np.log(large / small))


def negative_step(squared: Floats, weight: Floats, spread: Floats) -> Floats:
    """KL of a step per element [rows, elements] at a standard deviation of exp(spread) times the smallest.

    ``weight`` of the squared error of x0 is the one under the smallest variance.
    """
    log_ratio = 2.0 * spread  # of variances, model over posterior
    return np.asarray(weight * squared * np.exp(-log_ratio) + 0.5 * (log_ratio + np.expm1(-log_ratio)))
