"""Which levels a sampler visits: those of the package's own grid, else those that suit the sampler best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from export.package.grid import Grid
from export.package.schema import VeSchedule, VpSchedule
from serving.families.diffusion.grid import Spacing, levels_of
from serving.families.diffusion.process import Floats, Levels, Process

# How a sampler counts a package's grid, which libraries of schedulers do in four ways:
#   steps      training steps; each arrives at the next one
#   strided    training steps; each arrives one stride further down, wherever the next one is (DDIM)
#   noise      relative noise at training steps, or between them
#   multistep  training steps, one more than asked for and without the lowest
#   unified    the same, but for flows, of which it starts at the very end
Counting = Literal["steps", "strided", "noise", "multistep", "unified"]


NOISE_EDGE = 1e-6


@dataclass(frozen=True)
class Visits:
    """``levels`` of the network runs, then where the last one arrives; ``after`` where each one does."""

    levels: Levels
    after: Levels
    initial_sd: float

    @classmethod
    def along(cls, levels: Levels, initial_sd: float) -> Visits:
        """Each step arrives at the next level."""
        return cls(levels, levels[1:], initial_sd)


def visits_of(process: Process, steps: int, spacing: Spacing, counting: Counting) -> Visits:
    """The visits of ``steps`` steps. Samplers that churn keep their own levels on every package."""
    grid = process.spec.grid
    if grid is None or spacing == "churned":
        return Visits.along(levels_of(process, steps, spacing), process.initial_sd)
    if process.is_flow:
        return Visits.along(_flow(process, grid, steps, counting), 1.0)
    if isinstance(process.spec.schedule, VeSchedule):
        return _exploding(process, grid, steps)
    if counting in ("steps", "strided"):
        return _training_steps(process, grid, steps, counting == "strided")
    return _noises(process, grid, steps, counting != "noise")


# -- variance preserving -----------------------------------------------------------------------------


def _training_steps(process: Process, grid: Grid, steps: int, strided: bool) -> Visits:
    visited = _steps(process.count, steps, grid, grid.spacing or "leading")
    end = _end(process, grid.last_step) if strided else _end(process, "data")
    levels = process.at(visited).followed_by(end)
    if not strided:
        return Visits.along(levels, 1.0)
    arrived = visited - process.count // steps
    inside = np.flatnonzero(arrived >= 0)
    places = [process.at(arrived[[i]]) if i in inside else end for i in range(steps)]
    after = Levels(*(np.array([getattr(p, name)[0] for p in places]) for name in ("alpha", "sigma", "time")))
    return Visits(levels, after, 1.0)


def _steps(count: int, steps: int, grid: Grid, spacing: str) -> Floats:
    """Descending whole training steps."""
    if spacing == "linspace":
        found = np.rint(np.linspace(0, count - 1, steps))[::-1]
    elif spacing == "leading":
        found = (np.arange(steps) * (count // steps))[::-1] + grid.offset
    else:
        found = np.rint(count - np.arange(steps) * count / steps) - 1
    return np.clip(found, 0, count - 1).astype(np.float64)


def _noises(process: Process, grid: Grid, steps: int, multistep: bool) -> Visits:
    """Levels by relative noise, which is linear between training steps."""
    table = _ratios(process, grid)
    visited = (
        _open_steps(process.count, steps, grid) if multistep else _noise_steps(process.count, steps, grid)
    )
    ratio, time = np.interp(visited, np.arange(len(table)), table), visited
    if grid.spread != "steps":
        ends = (table[-1], table[0]) if multistep else (ratio[0], ratio[-1])
        ratio = _spread(grid, grid.highest or ends[0], grid.lowest or ends[1], steps)
        time = np.interp(np.log(ratio), np.log(table), np.arange(len(table)))
        time = _told(time, grid.time if multistep else "between")
    levels = _preserving(process, ratio, time)
    starts = {"unit": 1.0, "level": float(levels.sigma[0]), "rms": 1.0}
    sd = 1.0 if multistep else starts[grid.start]
    if grid.last_noise == "data":
        return Visits.along(levels.to_clean(), sd)
    lowest = _preserving(process, table[:1], np.zeros(1))
    if not multistep:  # samplers over relative noise return x / alpha
        lowest = Levels(np.ones(1), table[:1], lowest.time)
    return Visits.along(levels.followed_by(lowest), sd)


def _ratios(process: Process, grid: Grid) -> Floats:
    """sigma / alpha of every training step, in float32 as schedulers compute it.

    Near the data, where 1 - alpha^2 cancels, levels between the ends depend on that by 1e-4.
    """
    assert isinstance(process.spec.schedule, VpSchedule)
    kept = np.cumprod(1.0 - np.asarray(process.spec.schedule.betas, np.float32), dtype=np.float64)
    power = kept.astype(np.float32)
    if grid.least_signal is not None:
        power[-1] = grid.least_signal
    return np.asarray(np.sqrt((1.0 - power) / power), np.float64)


def _noise_steps(count: int, steps: int, grid: Grid) -> Floats:
    if grid.spacing not in (None, "linspace"):
        return _steps(count, steps, grid, grid.spacing)
    # In float32, as the place is what the network is told.
    return np.linspace(0, count - 1, steps, dtype=np.float32)[::-1].astype(np.float64)


def _open_steps(count: int, steps: int, grid: Grid) -> Floats:
    most = count - grid.skipped
    if grid.spacing in (None, "linspace"):
        found = np.rint(np.linspace(0, most - 1, steps + 1))[::-1][:-1]
    elif grid.spacing == "leading":
        found = (np.arange(steps + 1) * (most // (steps + 1)))[::-1][:-1] + grid.offset
    else:
        found = np.rint(np.maximum(most - np.arange(steps) * count / steps, 1.0)) - 1
    return np.clip(found, 0, count - 1).astype(np.float64)


def _told(time: Floats, how: str) -> Floats:
    return {"between": time, "nearest": np.rint(time), "lower": np.floor(time)}[how]


def _preserving(process: Process, ratio: Floats, steps: Floats) -> Levels:
    alpha = 1.0 / np.sqrt(1.0 + ratio**2)
    return process.told(alpha, ratio * alpha, steps)


def _end(process: Process, where: str) -> Levels:
    if where == "lowest":
        return process.at([0])
    return Levels(np.array([1.0]), np.array([0.0]), np.array([np.nan]))


def _spread(grid: Grid, highest: float, lowest: float, steps: int) -> Floats:
    """``steps`` values from ``highest`` down to ``lowest``."""
    if grid.spread == "exponential":
        return np.asarray(np.exp(np.linspace(np.log(highest), np.log(lowest), steps)), np.float64)
    ends = highest ** (1.0 / grid.rho), lowest ** (1.0 / grid.rho)
    return np.asarray(np.linspace(*ends, steps) ** grid.rho, np.float64)


# -- variance exploding ------------------------------------------------------------------------------


def _exploding(process: Process, grid: Grid, steps: int) -> Visits:
    low, high = process.ratio_range
    highest, lowest = grid.highest or high, grid.lowest or low
    sigma = _spread(grid, highest, lowest, steps) if grid.spread != "steps" else process.at(
        _steps(process.count, steps, grid, grid.spacing or "leading")
    ).sigma  # fmt: skip
    place = np.linspace(1.0, grid.time_edge, steps)
    told = sigma if not grid.time_edge else lowest * (highest / lowest) ** place
    levels = process.told(np.ones(steps), told, np.zeros(steps))
    levels = Levels(levels.alpha, sigma, levels.time).to_clean()
    sd = float(np.hypot(sigma[0], 1.0)) if grid.start == "rms" else float(sigma[0])
    return Visits.along(levels, sd)


# -- flows -------------------------------------------------------------------------------------------


def _flow(process: Process, grid: Grid, steps: int, counting: Counting) -> Levels:
    """Times of a flow; multistep samplers leave s = 1 out, where their steps are infinite."""
    edge = 1.0 / process.count
    if counting == "unified":
        s = _shifted(grid, np.linspace(1.0, edge, steps + 1)[:-1])
        s[0] = min(s[0], 1.0 - NOISE_EDGE)
        return process.at_flow(s, np.floor(s * process.count)).to_clean()
    if counting == "multistep":
        s = _shifted(grid, np.linspace(1.0 - edge, 0.0, steps + 1)[:-1])
        return process.at_flow(s, np.floor(s * process.count)).to_clean()
    s = _shifted(grid, np.linspace(1.0, float(_shifted(grid, np.array([edge]))[0]), steps))
    if grid.terminal is not None:
        s = 1.0 - (1.0 - s) * (1.0 - grid.terminal) / (1.0 - s[-1])
    if grid.spread != "steps":
        s = _spread(grid, float(s[0]), float(s[-1]), steps)
    return process.at_flow(s).to_clean()


def _shifted(grid: Grid, s: Floats) -> Floats:
    return np.asarray(grid.shift * s / (1.0 + (grid.shift - 1.0) * s), np.float64)
