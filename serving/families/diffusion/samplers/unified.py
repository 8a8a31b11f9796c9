"""UniPC: a predictor whose every step is corrected by the evaluation that the next step needs anyway."""

from __future__ import annotations

import numpy as np

from serving.families.diffusion.plan import HISTORY, Lines
from serving.families.diffusion.process import Floats, Levels


def unipc(levels: Levels) -> Lines:
    """Zhao et al. 2023 (UniPC), algorithms 1 and 2, order 2, for x0 and B(h) = e^h - 1.

    With l = ln(alpha / sigma), h = l' - l, r = h_previous / h, D = (m - m_previous) / r: the predictor is
    x' = (sigma'/sigma) x + alpha' (1 - e^-h) (m + D / 2). Their corrector replaces x, on arrival, by one
    that starts from the same x of the step before; it differs from the prediction only in known x0, so
    x + u m + v m_previous + w m_before_that is all it takes, and no earlier x is kept. First order in
    the first step, on the way to the data, and where h is infinite.
    """
    here, after = levels[:-1], levels[1:]
    with np.errstate(divide="ignore"):
        step = np.log(here.ratio) - np.log(after.ratio)  # [n] h, inf where a level has no signal or no noise
    a = after.sigma / here.sigma
    towards = after.alpha * -np.expm1(-step)
    slope = _half_slope(step)
    correction = _correction(step, after.alpha)
    b = towards * (1.0 + slope) + a * correction[:, 0]
    c = np.zeros((len(a), HISTORY))
    c[:, 0] = -towards * slope + a * correction[:, 1]
    c[:, 1] = a * correction[:, 2]
    return Lines(here, after, a, b, np.zeros_like(a), c)


def _half_slope(step: Floats) -> Floats:
    """1 / (2 r) per step; 0 where the predictor is of first order."""
    slope = np.zeros_like(step)
    usable = np.isfinite(step[1:]) & np.isfinite(step[:-1])
    slope[1:][usable] = step[1:][usable] / (2.0 * step[:-1][usable])
    return slope


def _correction(step: Floats, alpha: Floats) -> Floats:
    """(u, v, w) [n, 3]: what each line adds to the x that the line before predicted."""
    found, slope = np.zeros((len(step), 3)), _half_slope(step)
    for line in range(1, len(step)):
        h = step[line - 1]
        if not np.isfinite(h):
            continue
        scale = alpha[line - 1] * -np.expm1(-h)
        ratio = 2.0 * slope[line - 1]  # 1 / r of the step before; 0: it was of first order
        past, now = _weights(h, -1.0 / ratio) if ratio else (0.0, 0.5)
        older = -scale * (past - 0.5) * ratio if ratio else 0.0
        found[line] = scale * now, -scale * now - older, older
    return found


def _weights(h: float, r: float) -> tuple[float, float]:
    """Weights of (m_before - m) / r and of m_arrival - m (their eq. 10); r is negative, in steps h."""
    phi_1 = np.expm1(-h)
    phi_2 = phi_1 / -h - 1.0
    phi_3 = phi_2 / -h - 0.5
    past, now = np.linalg.solve([[1.0, 1.0], [r, 1.0]], [phi_2 / phi_1, 2.0 * phi_3 / phi_1])
    return float(past), float(now)
