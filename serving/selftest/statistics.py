"""Tests of whether numbers have the law that they should have; NumPy alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PERMUTATIONS = 1999
_TERMS = 100


def normal_tail(z: float) -> float:
    """Pr[Z >= z] of a standard normal."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def normal_cdf(values: Floats) -> Floats:
    """Phi of every value."""
    return np.asarray([1.0 - normal_tail(float(v)) for v in values.ravel()], np.float64).reshape(values.shape)


def kolmogorov(uniform: Floats, compared_with: int | None = None) -> tuple[float, float]:
    """(distance, p-value) of numbers that should be uniform on [0, 1].

    ``compared_with``: where they are ranks among that many draws, both samples are random (Smirnov).
    The p-value is Massart's bound 2 exp(-2 n d^2), never too small.
    """
    ordered = np.sort(uniform.ravel())
    n = len(ordered)
    above = np.arange(1, n + 1) / n - ordered
    below = ordered - np.arange(n) / n
    distance = float(max(above.max(), below.max()))
    effective = n if compared_with is None else n * compared_with / (n + compared_with)
    return distance, min(1.0, 2.0 * math.exp(-2.0 * effective * distance**2))


def kolmogorov_by_column(uniform: Floats) -> tuple[float, float]:
    """(largest distance, p-value) of [rows, ...] by position and pooled, corrected for their number."""
    columns = uniform.reshape(len(uniform), -1)
    found = [kolmogorov(column) for column in (columns.ravel(), *columns.T)]
    distance = max(d for d, _ in found)
    return distance, min(1.0, len(found) * min(p for _, p in found))


def swapped_pairs(one: Floats, other: Floats, seed: int) -> tuple[float, float]:
    """(energy distance, p-value) of paired rows [n, D] that are exchangeable within each pair.

    Energy distance of Szekely and Rizzo 2013; its law under the hypothesis comes from swapping pairs at
    random, which is exact for every n.
    """
    n = len(one)
    both = np.concatenate([one, other])
    scale = both.std(axis=0)
    both = both[:, scale > 0] / scale[scale > 0]
    squares = np.square(both).sum(axis=1)
    gaps = np.sqrt(np.maximum(squares[:, None] + squares - 2.0 * both @ both.T, 0.0))
    generator = np.random.Generator(np.random.Philox(seed))
    flips = generator.integers(0, 2, (PERMUTATIONS + 1, n)) * 2.0 - 1.0
    flips[0] = 1.0
    signs = np.concatenate([flips, -flips], axis=1)
    found = -np.einsum("pi,ij,pj->p", signs, gaps, signs, optimize=True) / n**2
    return float(found[0]), float((found >= found[0] - 1e-12).mean())
