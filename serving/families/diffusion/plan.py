"""A plan: one line of coefficients per network run, computed once in float64, kept in float32.

Line: m = u + g (c - u); x0 = clip(p x + q m, lo, hi); x' = a x + e m + b x0 + sum c_j h_j + d z; and on
observed entries x' = P known + Q z2. h_j is the x0 of j lines ago. Where the network learned the variance,
d is multiplied by exp(SPREAD (v + 1) / 2), element by element.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from serving.families.diffusion.process import Floats, Levels, Process

# Columns that the update reads, in the order of the kernel's ``coef``.
G, P_X, Q_OUT, LOW, HIGH, A, B, C1, C2, C3, D, KNOWN, RENOISE, E = range(14)
TIME, SCALE = 14, 15  # of the network's inputs
SPREAD = 16  # log of the largest over the smallest noise that a learned variance may choose
COLUMNS = 17
HISTORY = 3


@dataclass(frozen=True)
class Lines:
    """What a sampler says: where the network is asked, how the state moves, and at which level it then is.

    ``c`` [lines, 3]: weights of the x0 of 1, 2, 3 lines ago; ``spread`` of ``d`` where it is
    learned; ``e`` of the prediction itself. All float64, one entry per line.
    """

    asked: Levels
    after: Levels
    a: Floats
    b: Floats
    d: Floats
    c: Floats = field(default_factory=lambda: np.zeros((0, HISTORY)))
    spread: Floats | None = None
    e: Floats | None = None

    def history(self) -> Floats:
        """``c``, zeros where a sampler has no history."""
        return self.c if len(self.c) else np.zeros((len(self.a), HISTORY))


@dataclass(frozen=True)
class Plan:
    """``coef`` float32 [lines, COLUMNS]; ``exact`` the same in float64; ``initial_sd`` of the start."""

    exact: Floats
    initial_sd: float
    rescale: float = 0.0  # guidance rescale (Lin et al. 2024)
    threshold: float = 0.0  # percentile of dynamic thresholding to the bounds of x0; 0: none

    def __len__(self) -> int:
        return len(self.exact)

    @cached_property
    def coef(self) -> NDArray[np.float32]:
        """Coefficients as the device uses them."""
        return self.exact.astype(np.float32)

    @cached_property
    def key(self) -> bytes:
        """Equal for equal coefficients: rows of many requests share one copy."""
        return self.coef.tobytes()

    @cached_property
    def depth(self) -> int:
        """How many x0 of earlier lines are used."""
        used = np.flatnonzero(np.any(self.exact[:, C1 : C3 + 1] != 0.0, axis=0))
        return int(used[-1]) + 1 if len(used) else 0

    @cached_property
    def learned(self) -> bool:
        """Whether the network says how much noise any line adds."""
        return bool(np.any(self.exact[:, SPREAD] != 0.0))

    @cached_property
    def direct(self) -> bool:
        """Whether any line moves by the prediction itself."""
        return bool(np.any(self.exact[:, E] != 0.0))

    @cached_property
    def special(self) -> bool:
        """Whether a step is more than coefficients."""
        return bool(self.learned or self.rescale or self.threshold)

    @cached_property
    def guided(self) -> bool:
        """Whether the network is also asked without the condition."""
        return bool(np.any(self.exact[:, G] != 1.0))


@dataclass(frozen=True)
class Choices:
    """What a request may choose about any sampler."""

    guidance_scale: float = 1.0
    guidance_rescale: float = 0.0
    clip: bool = False
    dynamic_threshold: float = 0.0
    predicted_noise: bool = False  # beside a clipped x0


def plan_of(process: Process, lines: Lines, choices: Choices, initial_sd: float | None = None) -> Plan:
    """Coefficients of all lines. Bounds of x0 are the package's clip range, or none."""
    p, q = process.prediction(lines.asked)
    if choices.predicted_noise:
        lines = _with_predicted_noise(lines, p, q)
    clip = process.spec.clip_range if choices.clip or choices.dynamic_threshold else None
    low, high = clip if clip is not None else (-math.inf, math.inf)
    exact = np.zeros((len(lines.a), COLUMNS), np.float64)
    columns: dict[int, Floats | float] = {G: choices.guidance_scale, P_X: p, Q_OUT: q, LOW: low, HIGH: high}
    columns |= {A: lines.a, B: lines.b}
    columns |= {D: lines.d, KNOWN: lines.after.alpha, RENOISE: lines.after.sigma}
    columns |= {TIME: lines.asked.time, SCALE: process.input_scale(lines.asked)}
    columns |= {SPREAD: 0.0 if lines.spread is None else lines.spread}
    columns |= {E: 0.0 if lines.e is None else lines.e}
    for column, value in columns.items():
        exact[:, column] = value
    exact[:, C1 : C3 + 1] = lines.history()
    if not np.isfinite(np.delete(exact, [LOW, HIGH], axis=1)).all():
        raise ValueError("the schedule reaches a level at which the prediction says nothing about x0")
    sd = process.initial_sd if initial_sd is None else initial_sd
    return Plan(exact, sd, choices.guidance_rescale, choices.dynamic_threshold)


def _with_predicted_noise(lines: Lines, p: Floats, q: Floats) -> Lines:
    """First-order lines that go on with the predicted noise ((1 - alpha p) x - alpha q m) / sigma."""
    alpha = lines.asked.alpha
    return replace(lines, a=lines.a * (1.0 - alpha * p), b=lines.b + alpha * lines.a, e=-lines.a * alpha * q)
