"""Entropy of every entry's own law, in nats: of levels or symbols, from draws or from probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serving.families.capability import Parameter
from serving.families.request import Array

ENTROPY = Parameter("entropy", "bool", False)

Floats = NDArray[np.float64]


def entropy_of_draws(draws: Array, weights: Floats | None = None) -> NDArray[np.float32]:
    """Of whole numbers ``draws`` [rows, draws, *shape] with ``weights`` [rows, draws] (equal ones).

    The entropy of the shares, -sum p ln p: low by about (values - 1) / (2 draws) in the mean (Miller 1955),
    0 for one draw. [rows, *shape].
    """
    count = draws.shape[1]
    w = np.full(draws.shape[:2], 1.0 / count) if weights is None else weights
    w = w.reshape(*w.shape, *[1] * (draws.ndim - 2))
    total = np.zeros((len(draws), *draws.shape[2:]))
    for value in np.unique(draws):
        total += surprise((w * (draws == value)).sum(axis=1))
    return total.astype(np.float32)


def surprise(share: Floats) -> Floats:
    """-p ln p; exactly 0 where p is 0, and where it is 1 up to rounding."""
    p = np.where(share > 1.0 - 1e-12, 1.0, share)
    return np.asarray(-p * np.log(np.where(p > 0.0, p, 1.0)), np.float64)
