"""The probability-flow density in rounds: precision met row by row, budgets kept, draws those of one run."""

from __future__ import annotations

import numpy as np
import pytest

from export.package.schema import DataSpace
from serving.errors import ServingError
from serving.families.diffusion import flow_density
from serving.families.diffusion.flow_density import Budget
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
    levels_space,
    request,
    vectors,
)

SECTION = diffusion("vp")
NETWORK = GaussianDenoiser(SECTION, MEAN, COVARIANCE)
POINTS = np.array([[0.3, -0.5], [1.5, 0.4], [0.1, -0.6], [-0.9, -1.4]], np.float32)
LEVELS = np.array([[4, 2], [7, 5], [4, 3], [0, 1]], np.uint8)
PER_PROBE = 4 * (6 + 3)  # nodes of the fine and the coarse grid


def _asked(points: np.ndarray, **parameters: float | str) -> Request:
    found = {"steps": 6, "probes": 2, **parameters}
    return request(Operation.LIKELIHOOD, "probability_flow_ode", len(points), data=points, parameters=found)


def _scored(asked: Request, data: DataSpace) -> Scored:
    found = answer(family_of(SECTION, data), NETWORK, asked)
    assert isinstance(found, Scored)
    assert found.standard_error is not None
    assert found.network_evaluations is not None
    return found


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> DataSpace:
    """Vectors whose trace is estimated."""
    monkeypatch.setattr(flow_density, "EXACT_ELEMENTS", 1)
    return vectors()


def test_each_row_stops_at_its_own_precision() -> None:
    space = levels_space(2, 8)
    wanted: dict[str, float | str] = {
        "dequantization": "importance", "importance_samples": 4, "target_standard_error": 0.25,
    }  # fmt: skip
    found = _scored(_asked(LEVELS, **wanted), space)
    assert found.standard_error is not None
    assert found.network_evaluations is not None
    assert (found.standard_error <= 0.25).all()
    assert len(set(found.network_evaluations.tolist())) > 1
    for row in range(len(LEVELS)):
        program = family_of(SECTION, space)
        alone = request(
            Operation.LIKELIHOOD, "probability_flow_ode", 1, data=LEVELS[row : row + 1],
            parameters=_asked(LEVELS, **wanted).parameters,
        )  # fmt: skip
        single = answer(program, NETWORK, _from_row(alone, row))
        assert isinstance(single, Scored)
        assert single.log_prob[0] == found.log_prob[row]


def _from_row(asked: Request, row: int) -> Request:
    return Request(
        asked.operation, asked.method, asked.parameters, asked.seed, row, asked.rows, data=asked.data
    )


def test_a_budget_is_kept(probed: DataSpace) -> None:
    two = PER_PROBE * 5  # a node once, and twice along each of two probes
    found = _scored(_asked(POINTS, target_standard_error=1e-6, max_network_evaluations=3 * two), probed)
    assert found.network_evaluations is not None
    assert found.network_evaluations.tolist() == [3 * two] * len(POINTS)
    fewer = _scored(_asked(POINTS, max_network_evaluations=two - 1), probed)
    assert fewer.network_evaluations is not None
    assert fewer.network_evaluations.tolist() == [PER_PROBE * 3] * len(POINTS)
    with pytest.raises(ServingError, match=f"one draw takes {PER_PROBE * 3}"):
        Budget.of(family_of(SECTION, probed).denoiser, _asked(POINTS, max_network_evaluations=100))


def test_rounds_are_the_draws_of_one_long_run(probed: DataSpace) -> None:
    three = 3 * PER_PROBE * 5
    rounds = _scored(_asked(POINTS, target_standard_error=1e-9, max_network_evaluations=three), probed)
    whole = _scored(_asked(POINTS, probes=6), probed)
    np.testing.assert_allclose(rounds.log_prob, whole.log_prob, rtol=1e-12)
    assert rounds.standard_error is not None
    assert whole.standard_error is not None
    np.testing.assert_allclose(rounds.standard_error, whole.standard_error, rtol=1e-9)


def test_an_exact_density_needs_no_second_round() -> None:
    found = _scored(_asked(POINTS, target_standard_error=1e-6), vectors())
    assert found.standard_error is not None
    assert found.network_evaluations is not None
    assert found.standard_error.tolist() == [0.0] * len(POINTS)
    assert found.network_evaluations.tolist() == [PER_PROBE * 5] * len(POINTS)


def test_running_estimates_are_told_after_every_round(probed: DataSpace) -> None:
    asked = _asked(POINTS, target_standard_error=1e-6, max_network_evaluations=2 * PER_PROBE * 5)
    told: list[Result | None] = []
    final = _driven(family_of(SECTION, probed).program(asked), told)
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
            work = program.send({} if isinstance(work, Progress) else NETWORK(work.inputs))
        except StopIteration as stop:
            result: Result = stop.value
            return result
