"""Completion inside the denoising loop: at every line the observed entries are the known ones, noised.

Replacement (Song et al. 2021, section 5) conditions too weakly: the unknown entries never hear why the
known ones differ from their own guess. RePaint (Lugmayr et al. 2022, algorithm 1) goes back up and down
again, which mixes better; neither draws from the conditional law exactly, so both are APPROXIMATE.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serving.families.diffusion.completion import CompletedRows, Given
from serving.families.diffusion.denoiser import TABLE, Denoiser
from serving.families.diffusion.grid import levels_of
from serving.families.diffusion.moments import maps
from serving.families.diffusion.plan import Lines, Plan, plan_of
from serving.families.diffusion.process import Levels
from serving.families.diffusion.samplers.ancestral import ancestral_pairs
from serving.families.diffusion.samplers.first_order import fresh_variance
from serving.families.diffusion.samplers.predictor_corrector import predictor_corrector
from serving.families.diffusion.table import DenoiseRows
from serving.families.request import Request
from serving.families.result import Completed, CompletionKind
from serving.families.rows import Loop, Program

RENEWED = 0.5  # share of the noise that a corrector renews; more mixes faster and narrows the law


def visits(steps: int, jump: int, resamplings: int) -> NDArray[np.int64]:
    """Levels left before each network run and after the last: from ``steps`` (noise) down to 0 (data).

    RePaint's schedule: at each multiple of ``jump`` below ``steps`` the last ``jump`` steps are taken
    ``resamplings`` times; steps + (ceil(steps / jump) - 1) (resamplings - 1) jump runs in all.
    """
    down: list[int] = []
    for level in range(steps, 0, -1):
        down.append(level)
        reached = level - 1
        if reached and reached % jump == 0 and reached + jump <= steps:
            down += list(range(reached + jump, reached, -1)) * (resamplings - 1)
    return np.array([*down, 0], np.int64)


def completion_plan(denoiser: Denoiser, request: Request) -> Plan:
    """The plan of any method that completes inside the loop."""
    if request.method != "predictor_corrector":
        return repaint_plan(denoiser, request)
    found = request.parameters
    levels = levels_of(denoiser.process, int(found["steps"]), "trailing")  # type: ignore[arg-type]
    lines = predictor_corrector(levels, int(found["sweeps"]), RENEWED)  # type: ignore[arg-type]
    return plan_of(denoiser.process, lines, denoiser.choices(request))


def repaint_plan(denoiser: Denoiser, request: Request) -> Plan:
    """Ancestral lines along ``visits``; a way up is folded into the line before it.

    The way up to a level is affine, A x' + C z, so its line takes A a, A b, and noise of variance
    (A d)^2 + C^2; the known entries simply are noised to the upper level.
    """
    found = request.parameters
    steps = int(found["steps"])  # type: ignore[arg-type]
    jump, times = int(found.get("jump_length", steps)), int(found.get("resamplings", 1))  # type: ignore[arg-type]
    levels = levels_of(denoiser.process, steps, "trailing")
    path = visits(len(levels) - 1, jump, times)
    position = len(levels) - 1 - path  # of each visit among the descending levels
    here = levels[position[:-1]]
    reached = levels[position[:-1] + 1]
    resting = levels[position[1:]]
    lines = _folded(ancestral_pairs(here, reached), reached, resting)
    return plan_of(denoiser.process, lines, denoiser.choices(request))


def _folded(lines: Lines, reached: Levels, resting: Levels) -> Lines:
    up = resting.alpha / reached.alpha
    added = np.maximum(fresh_variance(resting, reached), 0.0)
    return Lines(lines.asked, resting, up * lines.a, up * lines.b, np.sqrt((up * lines.d) ** 2 + added))


def complete(denoiser: Denoiser, request: Request) -> Program:
    """Completions by the request's method: replacement, repaint or predictor_corrector."""
    plan = completion_plan(denoiser, request)
    given = Given(denoiser, request, request.completions)
    conditions = denoiser.conditions(request, request.completions)
    nulls = denoiser.given_nulls(request, request.completions)
    payload = DenoiseRows(
        plan, request.seed, given.rows(), conditions, given.copy(), None, given.known(), given.mask(), nulls
    )
    rows = request.rows * request.completions
    state = yield Loop(TABLE, rows, payload, np.full(rows, len(plan), np.int64), CompletedRows(given))
    data = given.composed(state["x"], request.completions)
    found = maps(request, data)
    return Completed(
        data,
        CompletionKind.APPROXIMATE,
        mean=found.mean,
        variance=found.variance,
        parameters=dict(request.parameters),
        entropy=found.entropy,
    )
