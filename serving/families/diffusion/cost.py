"""Network rows and sequential runs of a request, known before it starts."""

from __future__ import annotations

from serving.families.diffusion import anomaly, reconstruction
from serving.families.diffusion.denoiser import COMPONENT, Denoiser
from serving.families.diffusion.divergence import VJP
from serving.families.diffusion.flow_density import Budget
from serving.families.diffusion.refining import Rounds
from serving.families.diffusion.replacement import completion_plan
from serving.families.diffusion.sample import plan_for
from serving.families.request import Operation, Request


def cost(denoiser: Denoiser, request: Request) -> tuple[str, int, int]:
    """(component, network rows, sequential runs), upper bounds."""
    rows = request.rows
    match request.operation:
        case Operation.SAMPLE:
            plan = plan_for(denoiser, request)
            return COMPONENT, rows * len(plan) * (2 if plan.guided else 1), len(plan)
        case Operation.LIKELIHOOD:
            return _likelihood(denoiser, request)
        case Operation.INPAINT:
            return _inpaint(denoiser, request)
        case Operation.SCORE_ANOMALY:
            typical = request.method == anomaly.TYPICALITY
            levels = anomaly.STEPS * anomaly.DRAWS if typical else reconstruction.LEVELS
            return COMPONENT, rows * levels, 1
    return _inversion(request)


def _likelihood(denoiser: Denoiser, request: Request) -> tuple[str, int, int]:
    if request.method == "variational_bound":
        rounds = Rounds.of(request)
        draws, runs = sum(rounds.counts()), len(rounds.counts())
        return COMPONENT, request.rows * rounds.steps * draws, runs
    budget = Budget.of(denoiser, request)
    component = VJP if VJP in denoiser.spec.components else COMPONENT
    counts = budget.counts()
    runs = 4 * (budget.steps + max(1, budget.steps // 2)) * len(counts)
    return component, request.rows * sum(budget.evaluations(count) for count in counts), runs


def _inpaint(denoiser: Denoiser, request: Request) -> tuple[str, int, int]:
    filters = request.rows * request.completions
    if request.method == "smc":
        steps = _integer(request, "steps")
        return COMPONENT, filters * steps * _integer(request, "particles"), steps
    plan = completion_plan(denoiser, request)
    return COMPONENT, filters * len(plan) * (2 if plan.guided else 1), len(plan)


def _inversion(request: Request) -> tuple[str, int, int]:
    steps = _integer(request, "steps")
    up, down = 2 * (steps - 1), 2 * steps - 1
    rows = request.rows
    match request.operation:
        case Operation.ENCODE:
            back = down if request.parameters.get("round_trip", False) else 0
            return COMPONENT, rows * (up + back), up + back
        case Operation.DECODE:
            return COMPONENT, rows * down, down
        case Operation.RECONSTRUCT:
            return COMPONENT, rows * (up + down), up + down
    points = _integer(request, "points")
    return COMPONENT, rows * (2 * up + points * down), up + down


def _integer(request: Request, name: str) -> int:
    return int(request.parameters[name])  # type: ignore[arg-type]
