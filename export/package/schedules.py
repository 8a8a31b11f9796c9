"""Noise schedules, as numbers: the process of a diffusion model."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import field_validator

from export.package.record import Record


class VpSchedule(Record):
    """Variance preserving: x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) e, abar = cumprod(1 - beta)."""

    kind: Literal["vp"] = "vp"
    betas: tuple[float, ...]

    @field_validator("betas")
    @classmethod
    def _in_range(cls, betas: tuple[float, ...]) -> tuple[float, ...]:
        if len(betas) < 2 or not all(0.0 < b < 1.0 for b in betas[:-1]) or not 0.0 < betas[-1] <= 1.0:
            raise ValueError("schedule: betas must lie in (0, 1), at least two of them; the last may be 1")
        return betas


class VeSchedule(Record):
    """Variance exploding: x_t = x_0 + sigma_t e; sigmas ascend with the training step."""

    kind: Literal["ve"] = "ve"
    sigmas: tuple[float, ...]

    @field_validator("sigmas")
    @classmethod
    def _ascending(cls, sigmas: tuple[float, ...]) -> tuple[float, ...]:
        if len(sigmas) < 2 or sigmas[0] <= 0 or any(b <= a for a, b in pairwise(sigmas)):
            raise ValueError("schedule: sigmas must be positive and ascend, at least two of them")
        return sigmas


class FlowSchedule(Record):
    """Straight paths: x_s = (1 - s) x_0 + s e for s in [0, 1] (s = 1 is noise)."""

    kind: Literal["flow"] = "flow"
    training_steps: int = 1000  # multiplies s where time_input is "step"
