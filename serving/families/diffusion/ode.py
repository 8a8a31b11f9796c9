"""The probability-flow ODE as a vector field that is linear in the state and the network's output.

Song et al. 2021, eq. 13. VP and VE: y = x / sqrt(alpha^2 + sigma^2) over l = ln(sigma / alpha), in which
y' = u (e - u y), u = sigma / sqrt(alpha^2 + sigma^2): it stays of unit size and nearly still where
noise prevails. Flow: x over s, x' = v. Nodes are equidistant in a variable r in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serving.families.diffusion.process import Floats, Levels, Process

FLOW_EDGE = 1e-3  # distance from s = 0 and 1 that predictions other than the velocity need
RELATIVE_STEP = 0.03  # of a finite difference, in units of the noise
STEP_BOUNDS = 3e-4, 1e-2


@dataclass(frozen=True)
class Field:
    """dy/dr = own y + net m(scale_in y) at nodes of r, float64 [nodes]; ``step`` of a finite difference.

    ``x`` of the process is ``state_scale`` y. ``log_start``: nats per element between a density of
    y at the first node and one of the data; ``prior_sd`` of y at the last node.
    """

    levels: Levels
    own: Floats
    net: Floats
    state_scale: Floats
    step: Floats
    log_start: float
    prior_sd: float


def field_of(process: Process, steps: int) -> Field:
    """Nodes of ``steps`` steps of fourth-order Runge and Kutta: both ends and all midpoints, 2 steps + 1."""
    r = np.linspace(0.0, 1.0, 2 * steps + 1)
    return _flow(process, r) if process.is_flow else _log_ratio(process, r)


def _log_ratio(process: Process, r: Floats) -> Field:
    low, high = process.sampled_ratio_range
    span = np.log(high / low)
    levels = process.at_ratio(np.minimum(low * np.exp(span * r), high))
    rms = np.sqrt(levels.alpha**2 + levels.sigma**2)
    u = levels.sigma / rms
    p, q = process.prediction(levels)
    own = span * (1.0 - levels.alpha * p - u**2)
    net = -span * levels.alpha * q / rms
    prior_sd = process.initial_sd / float(rms[-1])
    step = np.clip(RELATIVE_STEP * u, *STEP_BOUNDS)
    return Field(levels, own, net, rms, step, float(np.log(levels.alpha[0] / rms[0])), prior_sd)


def _flow(process: Process, r: Floats) -> Field:
    velocity = process.spec.prediction in ("flow", "flow_reversed")
    low, high = (0.0, 1.0) if velocity else (FLOW_EDGE, 1.0 - FLOW_EDGE)
    s = low + (high - low) * r**2  # finer near the data, where paths bend
    speed = 2.0 * (high - low) * r
    levels = process.at_flow(s)
    if velocity:
        own, net = np.zeros_like(s), np.full_like(s, 1.0 if process.spec.prediction == "flow" else -1.0)
    else:
        p, q = process.prediction(levels)
        own, net = (1.0 - p) / s, -q / s
    step = np.clip(RELATIVE_STEP * s, *STEP_BOUNDS)
    scale = np.ones_like(s)
    return Field(levels, own * speed, net * speed, scale, step, float(np.log(levels.alpha[0])), 1.0)
