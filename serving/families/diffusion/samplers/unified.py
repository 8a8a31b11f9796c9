"""UniPC: a predictor whose every step is corrected by the evaluation that the next step needs anyway."""

from __future__ import annotations

import math

import numpy as np

from export.package.grid import Solver
from serving.families.diffusion.plan import HISTORY, Lines
from serving.families.diffusion.process import Floats, Levels
from serving.families.diffusion.samplers.multistep import DEFAULT, half_log_ratios

HALF = np.array([0.5])
PAST = HISTORY + 1  # x0 that a line may weigh: its own, and those of 1, 2, 3 lines ago


def unipc(levels: Levels, order: int = 2, solver: Solver = DEFAULT) -> Lines:
    """Zhao et al. 2023 (UniPC), algorithms 1 and 2, for x0, of order 1 to 3.

    With l = ln(alpha / sigma), h = l' - l and D_k = (m_k - m) / r_k, where m_k is the x0 of k steps ago and
    r_k how far back it lies, in steps h: the predictor is x' = (sigma'/sigma) x + alpha' ((1 - e^-h) m - B
    sum p_k D_k). Their corrector replaces x, on arrival, by one that starts from the same x of the step
    before; it differs from the prediction only in known x0, so weights of the last four x0 are all it
    takes, and no earlier x is kept. First order in the first step, on the way to the data, and where h is
    infinite.
    """
    here, after = levels[:-1], levels[1:]
    step = half_log_ratios(levels)
    orders = _orders(step, after, order, solver)
    a = after.sigma / here.sigma
    weights = np.zeros((len(a), PAST))
    for i in range(len(a)):
        weights[i] = after.alpha[i] * _prediction(step, i, orders[i], solver)
        if i and np.isfinite(step[i - 1]):
            weights[i] += a[i] * here.alpha[i] * _correction(step, i - 1, orders[i - 1], solver)
    return Lines(here, after, a, weights[:, 0], np.zeros_like(a), weights[:, 1:])


def _orders(step: Floats, after: Levels, order: int, solver: Solver) -> list[int]:
    found = []
    for i in range(len(step)):
        left = len(step) - i if solver.lower_order_final else order
        used = min(order, left, i + 1) if np.isfinite(step[i]) and after.sigma[i] > 0.0 else 1
        while used > 1 and not np.isfinite(step[i - used + 1 : i]).all():
            used -= 1
        found.append(used)
    return found


def _prediction(step: Floats, i: int, order: int, solver: Solver) -> Floats:
    """Weights of the last four x0 in a step, per alpha'."""
    weights = np.zeros(PAST)
    weights[0] = -np.expm1(-step[i])
    if order == 1:
        return weights
    back = _back(step, i, order)
    matrix, right, scale = _system(step[i], np.append(back, 1.0), solver)
    shares = HALF if order == 2 else np.asarray(np.linalg.solve(matrix[:-1, :-1], right[:-1]), np.float64)
    return weights - scale * _differences(back, shares, 0)


def _correction(step: Floats, i: int, order: int, solver: Solver) -> Floats:
    """What the x0 of the arrival and of the step's own past add to what the step predicted, per alpha'."""
    back = _back(step, i, order)
    matrix, right, scale = _system(step[i], np.append(back, 1.0), solver)
    shares = HALF if order == 1 else np.asarray(np.linalg.solve(matrix, right), np.float64)
    found = _differences(back, shares[:-1], 1)
    found[0] += shares[-1]
    found[1] -= shares[-1]
    predicted = np.roll(_prediction(step, i, order, solver), 1)
    predicted[1] += np.expm1(-step[i])
    return np.asarray(-scale * found - predicted, np.float64)


def _back(step: Floats, i: int, order: int) -> Floats:
    """r_k of k = 1 .. order - 1, negative."""
    return np.array([-step[i - k : i].sum() / step[i] for k in range(1, order)])


def _differences(back: Floats, shares: Floats, first: int) -> Floats:
    """sum of shares (m_k - m) / r_k as weights, m being the x0 of ``first`` lines ago."""
    weights = np.zeros(PAST)
    for k, (r, share) in enumerate(zip(back, shares, strict=True), start=1):
        weights[first + k] += share / r
        weights[first] -= share / r
    return weights


def _system(h: float, back: Floats, solver: Solver) -> tuple[Floats, Floats, float]:
    """Matrix and right side of their eq. 10, and B(h)."""
    scale = -h if solver.unipc_rule == "bh1" else float(np.expm1(-h))
    phi, right = math.expm1(-h) / -h - 1.0, []
    for k in range(1, len(back) + 1):
        right.append(phi * math.factorial(k) / scale)
        phi = phi / -h - 1.0 / math.factorial(k + 1)
    return np.vander(back, len(back), increasing=True).T, np.array(right), scale
