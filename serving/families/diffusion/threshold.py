"""Dynamic thresholding of the estimate of x0: a bound that each row takes from itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats32 = NDArray[np.float32]


def thresholded(
    x0: Floats32, percentile: Floats32, low: Floats32, high: Floats32, limit: float = np.inf
) -> Floats32:
    """Saharia et al. 2022 (Imagen), section 2.3, on rows [rows, n] of estimates; returns new ones.

    With the range [low, high] (both [rows, 1]) moved to [-1, 1]: s is the ``percentile`` [rows] of a row's
    absolute values, at least 1 and at most ``limit``; the row is bounded by s and divided by it. Rows never
    meet.
    """
    centre, half = (low + high) / np.float32(2.0), (high - low) / np.float32(2.0)
    y = (x0 - centre) / half
    bound = [np.quantile(np.abs(row), share) for row, share in zip(y, percentile.tolist(), strict=True)]
    s = np.clip(np.asarray(bound, np.float32), np.float32(1.0), np.float32(limit))[:, None]
    return np.asarray(centre + half * (np.clip(y, -s, s) / s), np.float32)
