"""A learned variance: the sampler's law and the bound, with amounts of noise that differ by element."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from export.package.components import check_components
from export.package.errors import PackageError
from export.package.schema import DataSpace, ModelSpec, TensorSpec
from serving.families.diffusion.family import DiffusionFamily
from serving.families.diffusion.grid import levels_of
from serving.families.diffusion.plan import Choices
from serving.families.diffusion.sample import sampling_plan
from serving.families.diffusion.samplers.ancestral import ancestral
from serving.families.diffusion.samplers.first_order import fresh_variance, posterior_variance
from serving.families.drive import run_alone
from serving.families.request import Operation, Request
from serving.families.result import Result, Sampled, Scored
from serving.families.rows import Tensors
from tests.analytic.diffusion.gaussian import (
    COVARIANCE,
    MEAN,
    Floats,
    GaussianDenoiser,
    diffusion,
    largest_z,
    law,
    package,
    request,
    vectors,
)

SAID = np.array([-0.6, 0.8])  # v of each element, at every level
STEPS = 12
ROWS = 20_000
FALSE_ALARM_Z = 4.9  # two-sided, 1e-6
SECTION = diffusion("vp", variance="learned_range")


@dataclass
class LearnedVariance(GaussianDenoiser):
    """The exact predictor, followed by what it says about the variance."""

    def __call__(self, inputs: Tensors) -> Tensors:
        found = super().__call__(inputs)["prediction"]
        said = torch.from_numpy(SAID).float().expand(found.shape)
        return {"prediction": torch.cat([found, said], dim=1)}


NETWORK = LearnedVariance(SECTION, MEAN, COVARIANCE)


def _package(data: DataSpace) -> ModelSpec:
    spec = package(SECTION, data)
    channels, *rest = data.shape
    doubled = TensorSpec(name="prediction", dtype="float32", shape=("rows", 2 * channels, *rest))
    denoiser = spec.components["denoiser"].model_copy(update={"outputs": (doubled,)})
    return spec.model_copy(update={"components": {"denoiser": denoiser}})


FAMILY = DiffusionFamily(_package(vectors()))


def _answer(asked: Request) -> Result:
    tables = FAMILY.tables({}, asked.rows, torch.device("cpu"))
    return run_alone(FAMILY.program(asked), {"denoiser": NETWORK}, tables)


def _variances() -> Floats:
    """Of every line but the last, by element: eq. 15 of Nichol and Dhariwal 2021, in its own words."""
    levels = levels_of(FAMILY.denoiser.process, STEPS, "trailing")
    beta = fresh_variance(levels[:-1], levels[1:])[:-1, None]
    posterior = posterior_variance(levels[:-1], levels[1:])[:-1, None]
    share = (SAID + 1.0) / 2.0
    return np.asarray(np.exp(share * np.log(beta) + (1.0 - share) * np.log(posterior)), np.float64)


def test_samples_follow_the_law_of_the_learned_variances() -> None:
    asked = request(Operation.SAMPLE, "ddpm", ROWS, parameters={"steps": STEPS})
    result = _answer(asked)
    assert isinstance(result, Sampled)
    levels = levels_of(FAMILY.denoiser.process, STEPS, "trailing")
    plan = sampling_plan(FAMILY.denoiser, "ddpm", STEPS, Choices())
    draws = np.asarray(result.data, np.float64)
    assert largest_z(draws, *_law(levels.alpha, levels.sigma)) < FALSE_ALARM_Z
    assert largest_z(draws, *law(plan, NETWORK, levels[:-1])) > FALSE_ALARM_Z  # the smallest variances


def _law(alpha: Floats, sigma: Floats) -> tuple[Floats, Floats]:
    levels = levels_of(FAMILY.denoiser.process, STEPS, "trailing")
    lines, variances = ancestral(levels), _variances()
    gains = NETWORK.gain(alpha[:-1], sigma[:-1])
    mean, cov, eye = np.zeros(2), np.eye(2), np.eye(2)
    for line, gain in enumerate(gains):
        move = lines.a[line] * eye + lines.b[line] * gain
        mean = move @ mean + lines.b[line] * (eye - alpha[line] * gain) @ MEAN
        cov = move @ cov @ move.T
        cov += np.diag(variances[line]) if line < len(variances) else 0.0
    return mean, cov


def test_other_samplers_ignore_what_is_said_of_the_variance() -> None:
    for sampler in ("ddpm_large", "ddim", "heun"):
        asked = request(Operation.SAMPLE, sampler, 4, parameters={"steps": STEPS})
        plain = GaussianDenoiser(SECTION, MEAN, COVARIANCE)
        tables = FAMILY.tables({}, 4, torch.device("cpu"))
        expected = run_alone(FAMILY.program(asked), {"denoiser": plain}, tables)
        found = _answer(asked)
        assert isinstance(expected, Sampled)
        assert isinstance(found, Sampled)
        np.testing.assert_array_equal(found.data, expected.data)


def test_bound_has_its_closed_form_within_its_standard_error() -> None:
    points = 200
    x0 = np.random.default_rng(1).multivariate_normal(MEAN, COVARIANCE, points).astype(np.float32)
    parameters = {"steps": STEPS, "probes": 12}
    asked = request(Operation.LIKELIHOOD, "variational_bound", points, data=x0, parameters=parameters)
    result = _answer(asked)
    assert isinstance(result, Scored)
    assert result.standard_error is not None
    z = (result.log_prob - _expected(x0.astype(np.float64))) / result.standard_error
    assert abs(z.mean()) * np.sqrt(points) < FALSE_ALARM_Z
    assert 0.5 < np.square(z).mean() < 2.0
    np.testing.assert_allclose(sum(result.terms.values()), result.log_prob, rtol=1e-12)


def _expected(x0: Floats) -> Floats:
    """Prior, steps and Gaussian decoder in expectation over the noise [points], term by term."""
    levels = levels_of(FAMILY.denoiser.process, STEPS, "trailing")
    lines, noisy = ancestral(levels), levels[:-1]
    gain = NETWORK.gain(noisy.alpha, noisy.sigma)
    shrunk = np.einsum("lij,pj->pli", np.eye(2) - noisy.alpha[:, None, None] * gain, x0 - MEAN)
    error = np.square(shrunk) + (noisy.sigma**2)[:, None] * np.square(gain).sum(axis=2)  # [p, l, 2]
    own = _variances()
    true = posterior_variance(levels[:-1], levels[1:])[:-1, None]
    moved = (lines.b[:-1, None] ** 2) * error[:, :-1]
    steps = 0.5 * (np.log(own / true) + (true + moved) / own - 1.0)
    share = (SAID + 1.0) / 2.0
    last = np.exp(share * np.log(noisy.sigma[-1] ** 2) + (1.0 - share) * np.log(true[-1]))
    decoder = -0.5 * (error[:, -1] / last + np.log(2 * np.pi * last))
    power = noisy.sigma[0] ** 2
    prior = 0.5 * (power + noisy.alpha[0] ** 2 * x0**2 - 1.0 - np.log(power))
    return np.asarray(-prior.sum(axis=1) - steps.sum(axis=(1, 2)) + decoder.sum(axis=1), np.float64)


def test_a_package_gives_twice_the_channels() -> None:
    spec = _package(vectors())
    check_components("package", spec)
    with pytest.raises(PackageError, match="prediction"):
        check_components("package", package(SECTION, vectors()))
