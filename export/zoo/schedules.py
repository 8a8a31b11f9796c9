"""The noise schedules of the reference diffusion models, in float64.

Rounded to ten decimals, so that every processor writes the same numbers into the package and its digest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

STEPS = 1000
DECIMALS = 10
SIGMA_MIN, SIGMA_MAX = 0.01, 10.0
SIGMA_DATA = 0.75


def cosine_betas() -> npt.NDArray[np.float64]:
    """Nichol and Dhariwal 2021, eq. 17: abar_t = f(t) / f(0), f = cos^2, betas at most 0.999; [1000]."""
    t = np.arange(STEPS + 1, dtype=np.float64) / STEPS
    kept = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    betas: npt.NDArray[np.float64] = np.minimum(1.0 - kept[1:] / kept[:-1], 0.999).round(DECIMALS)
    return betas


def geometric_sigmas() -> npt.NDArray[np.float64]:
    """Song and Ermon 2019: a geometric series of noise scales in model units, ascending; [1000]."""
    return np.geomspace(SIGMA_MIN, SIGMA_MAX, STEPS).round(DECIMALS)
