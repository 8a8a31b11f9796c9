"""Samplers against the law that their own coefficients have under the exact Gaussian denoiser."""

from __future__ import annotations

import numpy as np
import pytest

from serving.families.diffusion.grid import levels_of
from serving.families.diffusion.plan import Choices, Lines, plan_of
from serving.families.diffusion.process import Levels, Process
from serving.families.diffusion.sample import sampling_plan
from serving.families.diffusion.samplers.ancestral import ancestral
from serving.families.diffusion.samplers.first_order import ddim
from serving.families.diffusion.samplers.predictor_corrector import predictor_corrector
from serving.families.diffusion.samplers.registry import SAMPLERS
from serving.families.request import Operation
from serving.families.result import Sampled, SampleKind
from tests.analytic.diffusion.gaussian import (
    COVARIANCE,
    MEAN,
    GaussianDenoiser,
    answer,
    diffusion,
    family_of,
    kl,
    largest_z,
    law,
    request,
    vectors,
)

ROWS = 20_000
FALSE_ALARM_Z = 4.9  # two-sided, 1e-6
CASES = [(kind, s.name) for kind in ("vp", "ve", "flow") for s in SAMPLERS.values() if kind in s.schedules]


@pytest.mark.parametrize(("kind", "sampler"), CASES)
def test_samples_follow_the_affine_law_of_their_plan(kind: str, sampler: str) -> None:
    section = diffusion(kind)
    network, family = GaussianDenoiser(section, MEAN, COVARIANCE), family_of(section, vectors())
    found = SAMPLERS[sampler]
    levels = levels_of(family.denoiser.process, 12, found.spacing)
    plan = sampling_plan(family.denoiser, sampler, 12, Choices())
    mean, cov = law(plan, network, found.lines(levels, 0.0).asked)
    result = answer(family, network, request(Operation.SAMPLE, sampler, ROWS, parameters={"steps": 12}))
    assert isinstance(result, Sampled)
    assert result.kind is SampleKind.DISCRETIZED
    assert largest_z(np.asarray(result.data, np.float64), mean, cov) < FALSE_ALARM_Z


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v", "score"])
def test_every_prediction_of_the_same_process_gives_the_same_samples(prediction: str) -> None:
    data = []
    for name in ("epsilon", prediction):
        section = diffusion("vp", prediction=name)
        network = GaussianDenoiser(section, MEAN, COVARIANCE)
        asked = request(Operation.SAMPLE, "dpmpp_2m", 64, parameters={"steps": 12})
        result = answer(family_of(section, vectors()), network, asked)
        assert isinstance(result, Sampled)
        data.append(np.asarray(result.data, np.float64))
    np.testing.assert_allclose(data[0], data[1], atol=2e-4)


GOLDEN = [
    ("ancestral", 1000, 7.464e-4),
    ("large", 1000, 3.964e-5),
    ("ancestral", 100, 3.146e-2),
    ("ddim", 1000, 1.407e-4),
    ("ddim", 50, 3.057e-2),
    ("ddim", 10, 4.855e-1),
    ("stochastic ddim", 50, 8.271e-2),
]


@pytest.mark.parametrize(("sampler", "steps", "expected"), GOLDEN)
def test_divergence_from_the_data_is_the_known_one(sampler: str, steps: int, expected: float) -> None:
    section = diffusion("vp")
    process = Process(section)
    lines = _lines(sampler, levels_of(process, steps, "leading"))
    mean, cov = law(
        plan_of(process, lines, Choices()), GaussianDenoiser(section, MEAN, COVARIANCE), lines.asked
    )
    assert kl(mean, cov, MEAN, COVARIANCE) == pytest.approx(expected, rel=2e-3)


def _lines(sampler: str, levels: Levels) -> Lines:
    if sampler in ("ancestral", "large"):
        return ancestral(levels, large=sampler == "large")
    return ddim(levels, 1.0 if sampler.startswith("stochastic") else 0.0)


@pytest.mark.parametrize(
    ("steps", "ratio"), [(10, 0.75), (20, 0.87), (50, 0.944), (100, 0.972), (200, 0.986)]
)
def test_euler_on_a_flow_loses_the_known_share_of_variance(steps: int, ratio: float) -> None:
    section = diffusion("flow")
    levels = levels_of(Process(section), steps, "trailing")
    lines = ddim(levels)
    network = GaussianDenoiser(section, MEAN, COVARIANCE)
    _, cov = law(plan_of(Process(section), lines, Choices()), network, lines.asked)
    assert cov[0, 0] / COVARIANCE[0, 0] == pytest.approx(ratio, abs=0.006)


def test_rows_draw_their_own_noise() -> None:
    section = diffusion("vp")
    network = GaussianDenoiser(section, MEAN, COVARIANCE)
    asked = request(Operation.SAMPLE, "ddpm", ROWS, parameters={"steps": 8})
    result = answer(family_of(section, vectors()), network, asked)
    assert isinstance(result, Sampled)
    even, odd = (np.asarray(result.data[k::2, 0], np.float64) for k in (0, 1))
    assert abs(np.corrcoef(even, odd)[0, 1]) < FALSE_ALARM_Z / np.sqrt(ROWS / 2)


def test_correctors_bring_coarse_samples_closer_to_the_data() -> None:
    section = diffusion("ve")
    network, process = GaussianDenoiser(section, MEAN, COVARIANCE), Process(section)
    levels = levels_of(process, 30, "trailing")
    distance = []
    for lines in (ancestral(levels), predictor_corrector(levels), predictor_corrector(levels, 4)):
        distance.append(kl(*law(plan_of(process, lines, Choices()), network, lines.asked), MEAN, COVARIANCE))
    assert distance[1] < 0.9 * distance[0]
    assert distance[2] < 0.75 * distance[0]
