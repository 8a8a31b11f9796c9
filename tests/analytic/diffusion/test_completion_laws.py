"""Completions: the exact law of the algorithm, and its distance from the conditional law."""

from __future__ import annotations

import numpy as np
import pytest

from serving.families.diffusion.grid import levels_of
from serving.families.diffusion.replacement import completion_plan, repaint_plan, visits
from serving.families.request import Operation
from serving.families.result import Completed, CompletionKind
from tests.analytic.diffusion.gaussian import (
    COVARIANCE,
    MEAN,
    Clamped,
    Floats,
    GaussianDenoiser,
    answer,
    conditional,
    diffusion,
    family_of,
    largest_z,
    law,
    request,
    vectors,
)

VALUE = 0.8
DATA = np.array([[VALUE, np.nan]], np.float32)
OBSERVED = np.array([[True, False]])
CLAMPED = Clamped(OBSERVED[0], np.array([VALUE, 0.0]))


def _completed(kind: str, method: str, n: int, parameters: dict[str, int]) -> tuple[Floats, Completed]:
    section = diffusion(kind)
    network, family = GaussianDenoiser(section, MEAN, COVARIANCE), family_of(section, vectors())
    asked = request(
        Operation.INPAINT, method, 1, data=DATA, observed=OBSERVED, completions=n, parameters=parameters
    )
    result = answer(family, network, asked)
    assert isinstance(result, Completed)
    assert np.all(result.data[0, :, 0] == np.float32(VALUE))
    return np.asarray(result.data[0, :, 1], np.float64), result


def _algorithm_law(kind: str, method: str, parameters: dict[str, int]) -> tuple[Floats, Floats]:
    section = diffusion(kind)
    network, family = GaussianDenoiser(section, MEAN, COVARIANCE), family_of(section, vectors())
    asked = request(Operation.INPAINT, method, 1, data=DATA, observed=OBSERVED, parameters=parameters)
    plan = repaint_plan(family.denoiser, asked)
    steps = parameters["steps"]
    path = visits(steps, parameters.get("jump_length", steps), parameters.get("resamplings", 1))
    levels = levels_of(family.denoiser.process, steps, "trailing")
    mean, cov = law(plan, network, levels[len(levels) - 1 - path[:-1]], CLAMPED)
    return mean[1:], cov[1:, 1:]


@pytest.mark.parametrize("kind", ["vp", "ve", "flow"])
@pytest.mark.parametrize(
    ("method", "parameters"),
    [("replacement", {"steps": 25}), ("repaint", {"steps": 25, "jump_length": 5, "resamplings": 3})],
)
def test_completions_in_the_loop_follow_the_law_of_their_algorithm(
    kind: str, method: str, parameters: dict[str, int]
) -> None:
    draws, result = _completed(kind, method, 8_000, parameters)
    assert result.kind is CompletionKind.APPROXIMATE
    assert largest_z(draws[:, None], *_algorithm_law(kind, method, parameters)) < 4.9


def test_plain_replacement_is_far_from_the_conditional_law() -> None:
    mean, cov = _algorithm_law("vp", "replacement", {"steps": 250})
    true_mean, true_variance = conditional(MEAN, COVARIANCE, VALUE)
    assert (mean[0] - MEAN[1]) / (true_mean - MEAN[1]) < 0.85
    assert cov[0, 0] / true_variance > 1.15


@pytest.mark.parametrize("kind", ["ve", "flow"])
def test_repaint_comes_close_to_the_conditional_law(kind: str) -> None:
    parameters: dict[str, int] = {"steps": 250, "jump_length": 10, "resamplings": 10}
    mean, cov = _algorithm_law(kind, "repaint", parameters)
    true_mean, true_variance = conditional(MEAN, COVARIANCE, VALUE)
    assert (mean[0] - MEAN[1]) / (true_mean - MEAN[1]) == pytest.approx(1.0, abs=0.07)
    assert cov[0, 0] / true_variance == pytest.approx(1.0, abs=0.07)


@pytest.mark.parametrize("kind", ["vp", "ve", "flow"])
def test_correctors_come_close_to_the_conditional_law(kind: str) -> None:
    section = diffusion(kind)
    network, family = GaussianDenoiser(section, MEAN, COVARIANCE), family_of(section, vectors())
    levels = levels_of(family.denoiser.process, 100, "trailing")
    parameters = {"steps": 100, "sweeps": 5}
    asked = request(
        Operation.INPAINT, "predictor_corrector", 1, data=DATA, observed=OBSERVED, parameters=parameters
    )
    plan = completion_plan(family.denoiser, asked)
    mean, cov = law(plan, network, levels[np.repeat(np.arange(100), 6)], CLAMPED)
    true_mean, true_variance = conditional(MEAN, COVARIANCE, VALUE)
    assert (mean[1] - MEAN[1]) / (true_mean - MEAN[1]) == pytest.approx(0.97, abs=0.04)
    assert cov[1, 1] / true_variance == pytest.approx(0.89, abs=0.04)
    draws, _ = _completed(kind, "predictor_corrector", 1000, parameters)
    assert largest_z(draws[:, None], mean[1:], cov[1:, 1:]) < 4.9


def test_repaint_runs_as_often_as_its_authors_count() -> None:
    assert len(visits(250, 10, 10)) - 1 == 2410
    assert visits(4, 2, 2).tolist() == [4, 3, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("kind", ["ve", "flow"])
def test_particles_follow_the_conditional_law(kind: str) -> None:
    draws, result = _completed(kind, "smc", 600, {"steps": 60, "particles": 32})
    mean, variance = conditional(MEAN, COVARIANCE, VALUE)
    assert result.kind is CompletionKind.CONSISTENT
    assert result.effective_sample_size is not None
    assert 1.0 <= result.effective_sample_size[0] <= 32.0
    assert abs(draws.mean() - mean) < (0.05 + 4.9 / np.sqrt(600)) * np.sqrt(variance)
    assert draws.var() / variance == pytest.approx(0.9, abs=4.9 * np.sqrt(2 / 600))


def test_moments_agree_with_the_completions() -> None:
    _, result = _completed("flow", "smc", 300, {"steps": 30, "particles": 16, "moments": True})
    assert result.mean is not None
    assert result.variance is not None
    assert result.mean[0, 0] == np.float32(VALUE)
    assert result.variance[0, 0] == pytest.approx(0.0, abs=1e-9)
    assert result.mean[0, 1] == pytest.approx(float(result.data[0, :, 1].mean()), abs=0.1)
