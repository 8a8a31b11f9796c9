"""The variational bound in rounds: precision met row by row, budgets kept, draws those of one long run."""

from __future__ import annotations

import numpy as np
import pytest

from serving.errors import ServingError
from serving.families.diffusion.refining import Rounds
from serving.families.request import Operation, Request
from serving.families.result import Result, Scored
from serving.families.rows import Call, Program, Progress
from tests.analytic.diffusion.gaussian import (
    COVARIANCE,
    MEAN,
    GaussianDenoiser,
    answer,
    diffusion,
    family_of,
    request,
    vectors,
)

SECTION = diffusion("vp")
FAMILY, NETWORK = family_of(SECTION, vectors()), GaussianDenoiser(SECTION, MEAN, COVARIANCE)
POINTS = np.array([[0.3, -0.5], [1.5, 0.4], [0.1, -0.6], [-0.9, -1.4]], np.float32)


def _asked(points: np.ndarray, **parameters: float) -> Request:
    found = {"steps": 10, "probes": 2, **parameters}
    return request(Operation.LIKELIHOOD, "variational_bound", len(points), data=points, parameters=found)


def _scored(asked: Request) -> Scored:
    found = answer(FAMILY, NETWORK, asked)
    assert isinstance(found, Scored)
    return found


def test_each_row_stops_at_its_own_precision() -> None:
    found = _scored(_asked(POINTS, target_standard_error=0.4))
    assert found.standard_error is not None
    assert found.network_evaluations is not None
    assert (found.standard_error <= 0.4).all()
    assert len(set(found.network_evaluations.tolist())) > 1
    alone = _scored(_asked(POINTS[:1], target_standard_error=0.4))
    assert alone.log_prob[0] == found.log_prob[0]
    assert alone.network_evaluations is not None
    assert alone.network_evaluations[0] == found.network_evaluations[0]


def test_a_budget_is_kept() -> None:
    found = _scored(_asked(POINTS, target_standard_error=1e-6, max_network_evaluations=75))
    assert found.network_evaluations is not None
    assert found.network_evaluations.tolist() == [60] * len(POINTS)  # a seventh draw has no error of its own
    with pytest.raises(ServingError, match="one draw takes 10"):
        Rounds.of(_asked(POINTS, max_network_evaluations=9))


def test_rounds_are_the_draws_of_one_long_run() -> None:
    rounds = _scored(_asked(POINTS, target_standard_error=1e-6, max_network_evaluations=80))
    whole = _scored(_asked(POINTS, probes=8))
    np.testing.assert_allclose(rounds.log_prob, whole.log_prob, rtol=1e-9)


def test_running_estimates_are_told_after_every_round() -> None:
    program = FAMILY.program(_asked(POINTS, target_standard_error=1e-6, max_network_evaluations=40))
    told: list[Result | None] = []
    final = _driven(program, told)
    assert len(told) == 2
    assert isinstance(told[1], Scored)
    assert isinstance(final, Scored)
    np.testing.assert_array_equal(told[1].log_prob, final.log_prob)


def _driven(program: Program, told: list[Result | None]) -> Result:
    work = next(program)
    while True:
        assert isinstance(work, Call | Progress)
        if isinstance(work, Progress):
            told.append(work.partial)
        try:
            work = program.send(NETWORK(work.inputs) if isinstance(work, Call) else {})
        except StopIteration as stop:
            result: Result = stop.value
            return result
