"""Mean, variance and entropy maps of completions, in the data space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.families.entropy import entropy_of_draws
from serving.families.request import Array, Request

Map = NDArray[np.float32] | None


@dataclass(frozen=True)
class Maps:
    """[rows, *shape] float32 each; None unless asked for. Entropy in nats."""

    mean: Map = None
    variance: Map = None
    entropy: Map = None


def maps(request: Request, draws: Array, weights: Array | None = None) -> Maps:
    """Of ``draws`` [rows, draws, *shape] with weights [rows, draws] (equal ones)."""
    w = np.full(draws.shape[:2], 1.0 / draws.shape[1]) if weights is None else weights.astype(np.float64)
    mean, variance = _moments(draws, w) if request.parameters.get("moments", False) else (None, None)
    return Maps(mean, variance, entropy_of_draws(draws, w) if request.parameters.get("entropy") else None)


def _moments(draws: Array, weights: NDArray[np.float64]) -> tuple[Map, Map]:
    values = draws.astype(np.float64)
    w = weights.reshape(*weights.shape, *[1] * (values.ndim - 2))
    mean = (w * values).sum(axis=1)
    variance = (w * np.square(values - mean[:, None])).sum(axis=1)
    return mean.astype(np.float32), variance.astype(np.float32)
