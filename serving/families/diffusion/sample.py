"""Sample: rows of noise that follow a sampler's plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from serving.families.diffusion.denoiser import TABLE, Denoiser, rows_of
from serving.families.diffusion.plan import Choices, Plan, plan_of
from serving.families.diffusion.samplers.registry import SAMPLERS
from serving.families.diffusion.table import DenoiseRows
from serving.families.diffusion.visits import visits_of
from serving.families.request import Request
from serving.families.result import Sampled, SampleKind
from serving.families.rows import Loop, Program

KEPT_PLANS = 256


def sampling_plan(denoiser: Denoiser, sampler: str, steps: int, choices: Choices, eta: float = 0.0) -> Plan:
    """Coefficients of a sampler over its own choice of levels; plans that were asked for lately are kept."""
    key = (sampler, steps, choices, eta)
    plan = denoiser.plans.get(key)
    if plan is None:
        found = SAMPLERS[sampler]
        visits = visits_of(denoiser.process, steps, found.spacing, found.counting)
        if found.predicted_noise and denoiser.diffusion.clipped_noise == "predicted":
            bounded = choices.clip or choices.dynamic_threshold > 0.0
            choices = replace(choices, predicted_noise=bounded)
        lines = found.lines_of(visits, eta, denoiser.diffusion)
        plan = plan_of(denoiser.process, lines, choices, visits.initial_sd)
        if len(denoiser.plans) >= KEPT_PLANS:
            denoiser.plans.clear()
        denoiser.plans[key] = plan
    return plan


def plan_for(denoiser: Denoiser, request: Request) -> Plan:
    """The plan of a Sample request; the last one is remembered, since cost and program both ask."""
    known, plan = denoiser.last_plan
    if known is not request:
        plan = _plan_for(denoiser, request)
        denoiser.last_plan = (request, plan)
    assert plan is not None
    return plan


def _plan_for(denoiser: Denoiser, request: Request) -> Plan:
    steps, eta = int(request.parameters["steps"]), float(request.parameters.get("eta", 0.0))  # type: ignore[arg-type]
    return sampling_plan(denoiser, request.method, steps, denoiser.choices(request), eta)


def sample(denoiser: Denoiser, request: Request) -> Program:
    """Draw ``rows`` rows; kind MODIFIED with guidance or dynamic thresholding, else DISCRETIZED.

    What the rows need is put together here, on the thread that asks, not on the one that ticks.
    """
    plan = plan_for(denoiser, request)
    conditions, nulls = denoiser.conditions(request), denoiser.given_nulls(request)
    payload = DenoiseRows(plan, request.seed, rows_of(request), conditions, nulls=nulls)
    steps = np.full(request.rows, len(plan), np.int64)
    return _drawn(denoiser, request, plan, Loop(TABLE, request.rows, payload, steps, denoiser.shown))


def _drawn(denoiser: Denoiser, request: Request, plan: Plan, loop: Loop) -> Program:
    state = yield loop
    kind = SampleKind.MODIFIED if plan.guided or plan.threshold else SampleKind.DISCRETIZED
    return Sampled(denoiser.data_of(state), kind, parameters=dict(request.parameters))
