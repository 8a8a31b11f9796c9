"""Monte-Carlo estimates per row, drawn in rounds until a precision or a budget is reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from serving.errors import invalid
from serving.families import units
from serving.families.capability import Parameter
from serving.families.latent.evaluator import Steps
from serving.families.latent.lanes import Lanes
from serving.families.latent.run import Run
from serving.families.request import Request
from serving.families.result import Scored
from serving.families.rows import Progress

MOST_ROUNDS = 64
Floats = NDArray[np.float64]

OBSERVED = Parameter("observed", "bool", None)  # the method scores given entries alone, if told which
PRECISION = (
    Parameter("target_standard_error", "float", None, 1e-6, 1e3),
    Parameter("max_network_evaluations", "int", None, 1, 10**9),
)


@dataclass(frozen=True)
class Budget:
    """Draws of a row: ``per_round`` at a time, ``most`` in all; it stops at ``target`` standard error."""

    per_round: int
    most: int
    target: float | None

    @classmethod
    def of(cls, request: Request, fixed: int, per_draw: int) -> Budget:
        """From a request's parameters, where a row costs ``fixed`` + ``per_draw`` * draws network rows."""
        draws = int(request.parameters["importance_samples"])  # type: ignore[arg-type]
        target = request.parameters.get("target_standard_error")
        limit = request.parameters.get("max_network_evaluations")
        most = draws * (MOST_ROUNDS if target is not None else 1)
        if limit is not None:
            allowed = (int(limit) - fixed) // per_draw  # type: ignore[arg-type]
            if allowed < 1:
                raise invalid(
                    "parameters.max_network_evaluations", f"one draw takes {fixed + per_draw} network rows"
                )
            most = min(most, allowed)
        return cls(min(draws, most), most, None if target is None else float(target))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Estimate:
    """Per row: value in nats, standard error (nan from one draw), effective sample size or nan."""

    value: Floats
    standard_error: Floats
    ess: Floats


def mean(draws: Floats) -> Estimate:
    """Arithmetic mean of draws [rows, k]."""
    k = draws.shape[1]
    value = draws.mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.square(draws - value[:, None]).sum(axis=1) / np.float64(k - 1)
    return Estimate(value, np.sqrt(spread / k), np.full(len(draws), np.nan))


def log_mean_exp(draws: Floats) -> Estimate:
    """ln of the mean weight of log-weights [rows, k]."""
    return Estimate(*units.log_mean_exp(draws, axis=1))


def refine(
    run: Run,
    budget: Budget,
    draw: Callable[[Lanes], Steps[torch.Tensor]],
    summarise: Callable[[Floats], Estimate],
    answer: Callable[[Estimate], Scored],
) -> Steps[Scored]:
    """Every row stops on its own standard error, so that none depends on its neighbours.

    ``draw`` returns float64 [lanes]; particle k of a row is its k-th draw. Stopping on an estimated
    error biases slightly towards rows whose early draws agree (Robbins 1959); a budget alone does not.
    """
    active = np.arange(run.rows)
    history = np.empty((run.rows, 0))
    total = Estimate(*(np.full(run.rows, np.nan) for _ in range(3)))
    while len(active) and history.shape[1] < budget.most:
        first = history.shape[1]
        count = min(budget.per_round, budget.most - first)
        lanes = Lanes.of(run.request, count, run.device, first=first, rows=torch.from_numpy(active))
        drawn = yield from draw(lanes)
        history = np.concatenate([history, drawn.reshape(len(active), count).cpu().numpy()], axis=1)
        _write(total, active, summarise(history))
        if budget.target is not None:
            yield Progress(answer(total))
            open_rows = ~(total.standard_error[active] <= budget.target)
            active, history = active[open_rows], history[open_rows]
    return answer(total)


def _write(total: Estimate, rows: NDArray[np.int64], part: Estimate) -> None:
    total.value[rows] = part.value
    total.standard_error[rows] = part.standard_error
    total.ess[rows] = part.ess
