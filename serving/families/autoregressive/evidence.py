"""log p(x_observed) by sequential Monte Carlo, to a stated standard error.

The mean of unbiased estimates of p is unbiased; its log is below log p in the mean (Jensen), and above
log p + b with probability at most e^-b (Markov). Independent filters give the standard error.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.families.autoregressive.masks import Partial
from serving.families.autoregressive.particles import Plan, run_filters
from serving.families.autoregressive.symbols import Alphabet, Ids
from serving.families.request import Request
from serving.families.result import BaseMeasure, LikelihoodKind, Scored
from serving.families.rows import Program, Progress, Tensors, Yield
from serving.families.units import log_mean_exp

FILTERS = 8  # independent filters of a round
MOST_ROUNDS = 64  # where only a standard error is asked for


@dataclass
class _Estimates:
    """Log-evidences of the filters that each row has run; rows stop on their own."""

    rows: int
    found: list[list[float]] = field(init=False)
    ess: NDArray[np.float64] = field(init=False)
    evaluations: Ids = field(init=False)

    def __post_init__(self) -> None:
        self.found = [[] for _ in range(self.rows)]
        self.ess = np.zeros(self.rows, np.float64)
        self.evaluations = np.zeros(self.rows, np.int64)

    def scored(self, partial: Partial, request: Request) -> Scored:
        """The answer so far."""
        means = [log_mean_exp(np.array(row)) for row in self.found]
        return Scored(
            np.array([float(mean.value) for mean in means]),
            partial.observed.sum(axis=1),
            LikelihoodKind.STOCHASTIC_LOWER_BOUND,
            target="model",
            base_measure=BaseMeasure.COUNTING,
            standard_error=np.array([float(mean.standard_error) for mean in means]),
            effective_sample_size=self.ess.copy(),
            network_evaluations=self.evaluations.copy(),
            parameters=dict(request.parameters),
        )


def estimate(alphabet: Alphabet, request: Request) -> Program:
    """Rounds of independent filters, until each row's standard error or budget is met."""
    partial = Partial.of(alphabet, request)
    estimates = _Estimates(request.rows)
    budget = rounds(request, round_plan(request, 0).evaluations(partial, alphabet.size))
    answer = estimates.scored
    result: Scored | None = None
    open_rows = np.arange(request.rows)
    for number in range(int(budget.max(initial=1))):
        yield from _round(alphabet, request, partial, open_rows, number, estimates)
        result = answer(partial, request)
        open_rows = _unmet(request, result, budget, number + 1)
        if not len(open_rows):
            break
        yield Progress(result)
    assert result is not None
    return result


def _round(
    alphabet: Alphabet, request: Request, partial: Partial, rows: Ids, number: int, estimates: _Estimates
) -> Generator[Yield, Tensors, None]:
    part, plan = partial.take(rows), round_plan(request, number)
    filters = yield from run_filters(alphabet, request, part, plan)
    for row, evidence in zip(rows.tolist(), filters.log_evidence, strict=True):
        estimates.found[row] += evidence.tolist()
    estimates.ess[rows] += filters.least_ess.sum(axis=1)
    estimates.evaluations[rows] += filters.evaluations


def _unmet(request: Request, result: Scored, budget: Ids, done: int) -> Ids:
    """Rows that want another round and may have it."""
    target = request.parameters.get("target_standard_error")
    if not isinstance(target, int | float) or result.standard_error is None:
        return np.empty(0, np.int64)
    return np.flatnonzero((result.standard_error > target) & (budget > done))


def round_plan(request: Request, number: int) -> Plan:
    """The filters of one round."""
    samples = request.parameters.get("importance_samples", 256)
    assert isinstance(samples, int)
    return Plan(FILTERS, max(1, math.ceil(samples / FILTERS)), first=number * FILTERS)


def rounds(request: Request, each: Ids) -> Ids:
    """Rounds that each row may take, at least one [rows]; ``each``: network rows of a round."""
    if request.parameters.get("target_standard_error") is None:
        return np.ones(request.rows, np.int64)
    most = request.parameters.get("max_network_evaluations")
    if not isinstance(most, int):
        return np.full(request.rows, MOST_ROUNDS)
    return np.maximum(1, most // each)
