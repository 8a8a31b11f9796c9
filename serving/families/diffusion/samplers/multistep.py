"""Higher order from earlier x0: DPM-Solver++ of order 1 to 3, its SDE form, and its singlestep form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from export.package.grid import Solver
from serving.families.diffusion.plan import HISTORY, Lines
from serving.families.diffusion.process import Floats, Levels

FEW_STEPS = 15  # fewer of them may end with lower orders
DEFAULT = Solver()


def dpmpp_2m(levels: Levels, stochastic: bool = False) -> Lines:
    """DPM-Solver++(2M), and SDE-DPM-Solver++(2M)."""
    return dpmpp(levels, 2, stochastic)


def dpmpp(levels: Levels, order: int, stochastic: bool = False, solver: Solver = DEFAULT) -> Lines:
    """Lu et al. 2022 (DPM-Solver++), algorithm 2 and its third order; the SDE form is their eq. 19.

    With l = ln(alpha / sigma), h = l' - l, k = e^-h: x' = (sigma'/sigma) x + T0 x0 + T1 D1 + T2 D2, where D1
    and D2 are differences of the last x0 in steps of h. The SDE form takes k^2 for k and adds noise. First
    order in the first step and on the way to the data, where h is infinite.
    """
    step = half_log_ratios(levels)
    here, after = levels[:-1], levels[1:]
    a, d = after.sigma / here.sigma, np.zeros(len(step))
    if stochastic:
        a, d = a * np.exp(-step), after.sigma * np.sqrt(-np.expm1(-2.0 * step))
    reach = 2.0 * step if stochastic else step
    orders = _orders(step, after, order, solver)
    weights = np.array(
        [after.alpha[i] * _weights(step, reach[i], i, used, solver) for i, used in enumerate(orders)]
    )
    return Lines(here, after, a, weights[:, 0], d, np.pad(weights[:, 1:], ((0, 0), (0, HISTORY - 2))))


def half_log_ratios(levels: Levels) -> Floats:
    """h of every step [n], inf where a level has no signal or no noise."""
    with np.errstate(divide="ignore"):
        return np.asarray(-np.diff(np.log(levels.ratio)), np.float64)


def _orders(step: Floats, after: Levels, order: int, solver: Solver) -> list[int]:
    """The order of every step: at most what its usable predecessors allow, less at the end."""
    count, found = len(step), []
    few = solver.lower_order_final and count < FEW_STEPS
    for i in range(count):
        past = 0
        while past < min(order - 1, i) and np.isfinite(step[i - past - 1]):
            past += 1
        used = past + 1 if np.isfinite(step[i]) and step[i] > 0.0 else 1
        if i == count - 1 and (solver.euler_at_final or few or after.sigma[i] == 0.0):
            used = 1
        found.append(min(used, 2) if i == count - 2 and few else used)
    return found


def _weights(step: Floats, reach: float, i: int, order: int, solver: Solver) -> Floats:
    """What x0 and the x0 of one and two steps ago weigh in a step, per alpha'."""
    decay = np.expm1(-reach)
    weights = np.array([-decay, 0.0, 0.0])
    if order == 1:
        return weights
    first = np.array([1.0, -1.0, 0.0]) * (step[i] / step[i - 1])  # D1 of order 2
    if order == 2:
        half = -0.5 * decay if solver.rule == "midpoint" else decay / reach + 1.0
        return np.asarray(weights + half * first)
    second = np.array([0.0, 1.0, -1.0]) * (step[i] / step[i - 2])
    r0, r1 = step[i - 1] / step[i], step[i - 2] / step[i]
    slope = first + r0 / (r0 + r1) * (first - second)
    curve = (first - second) / (r0 + r1)
    return np.asarray(weights + (decay / reach + 1.0) * slope - ((decay + reach) / reach**2 - 0.5) * curve)


def dpmpp_2s(levels: Levels, solver: Solver = DEFAULT) -> Lines:
    """DPM-Solver++(2S), algorithm 1 of Lu et al. 2022: pairs of steps, the second from where the first began.

    The beginning follows from where the first step arrived, and the x0 that it took, so no x is kept.
    """
    lines = dpmpp(levels, 1, solver=solver)
    step, count = half_log_ratios(levels), len(levels) - 1
    a, b, c = lines.a.copy(), lines.b.copy(), np.zeros((count, HISTORY))
    single = solver.lower_order_final or count % 2 == 1 or lines.after.sigma[-1] == 0.0
    for i in range(1, count - 1 if single else count, 2):
        if not np.isfinite(step[i - 1 : i + 1]).all():
            continue
        whole = step[i] + step[i - 1]
        decay, alpha = np.expm1(-whole), lines.after.alpha[i]
        half = -0.5 * decay if solver.rule == "midpoint" else decay / whole + 1.0
        difference = alpha * half * whole / step[i - 1]
        a[i] = lines.after.sigma[i] / lines.asked.sigma[i]
        b[i] = difference
        c[i, 0] = -alpha * decay - difference - a[i] * lines.b[i - 1]
    return replace(lines, a=a, b=b, c=c)
