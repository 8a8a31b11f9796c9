"""Mean and variance maps of completions, in the data space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serving.families.request import Array, Request

Map = NDArray[np.float32] | None


def moments(request: Request, draws: Array, weights: Array | None = None) -> tuple[Map, Map]:
    """Of ``draws`` [rows, draws, *shape] with weights [rows, draws] (equal ones); None unless asked for."""
    if not request.parameters.get("moments", False):
        return None, None
    values = draws.astype(np.float64)
    count = values.shape[1]
    w = np.full(values.shape[:2], 1.0 / count) if weights is None else weights.astype(np.float64)
    w = w.reshape(*w.shape, *[1] * (values.ndim - 2))
    mean = (w * values).sum(axis=1)
    variance = (w * np.square(values - mean[:, None])).sum(axis=1)
    return mean.astype(np.float32), variance.astype(np.float32)
