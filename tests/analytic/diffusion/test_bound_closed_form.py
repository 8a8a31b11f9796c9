"""The variational bound against its own closed form, never against ln p."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from serving.families.diffusion.bound import Chain
from serving.families.diffusion.decoder import log_decoder
from serving.families.request import Operation
from serving.families.result import LikelihoodKind, Scored
from tests.analytic.diffusion.gaussian import (
    COVARIANCE,
    MEAN,
    Floats,
    GaussianDenoiser,
    answer,
    diffusion,
    family_of,
    levels_space,
    request,
    vectors,
)

POINTS = 200
STEPS = 40
DRAWS = 12


def _expected(chain: Chain, network: GaussianDenoiser, x0: Floats) -> Floats:
    """Prior, steps and Gaussian decoder in expectation over the noise [points]."""
    alpha, sigma = chain.levels.alpha, chain.levels.sigma
    gain = network.gain(alpha, sigma)
    eye = np.eye(x0.shape[1])
    shrunk = np.einsum("lij,pj->pli", eye - alpha[:, None, None] * gain, x0 - network.mean)
    error = np.square(shrunk).sum(axis=2) + sigma**2 * np.square(gain).sum(axis=(1, 2))
    ratio = (sigma[0] / chain.prior_sd) ** 2
    dims = x0.shape[1]
    spread = (alpha[0] / chain.prior_sd) ** 2 * np.square(x0).sum(axis=1)
    prior = -0.5 * (dims * (ratio - 1.0 - np.log(ratio)) + spread)
    steps = -(error[:, :-1] * chain.weight).sum(axis=1) - dims * chain.constant
    decoder = -error[:, -1] / (2 * chain.decoder_sd**2) - dims * np.log(chain.decoder_sd * np.sqrt(2 * np.pi))
    return np.asarray(prior + steps + decoder, np.float64)


@pytest.mark.parametrize("kind", ["vp", "ve", "flow"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_bound_has_its_closed_form_within_its_standard_error(kind: str, variance: str) -> None:
    section = diffusion(kind, variance=variance)
    network, family = GaussianDenoiser(section, MEAN, COVARIANCE), family_of(section, vectors())
    x0 = np.random.default_rng(1).multivariate_normal(MEAN, COVARIANCE, POINTS).astype(np.float32)
    parameters = {"steps": STEPS, "probes": DRAWS}
    asked = request(Operation.LIKELIHOOD, "variational_bound", POINTS, data=x0, parameters=parameters)
    result = answer(family, network, asked)
    assert isinstance(result, Scored)
    assert result.kind is LikelihoodKind.STOCHASTIC_LOWER_BOUND
    assert result.standard_error is not None
    truth = _expected(Chain.of(family.denoiser, STEPS), network, x0.astype(np.float64))
    z = (result.log_prob - truth) / result.standard_error
    assert abs(z.mean()) * np.sqrt(POINTS) < 4.9
    assert 0.5 < np.square(z).mean() < 2.0  # the error of the standard error's own estimate widens z
    np.testing.assert_allclose(sum(result.terms.values()), result.log_prob, rtol=1e-12)


def test_bound_lies_below_the_density_in_the_mean_over_the_data() -> None:
    """Point by point it need not: it bounds the density of the sampler, not of the data."""
    section = diffusion("vp", variance="fixed_large")
    network, family = GaussianDenoiser(section, MEAN, COVARIANCE), family_of(section, vectors())
    x0 = np.random.default_rng(2).multivariate_normal(MEAN, COVARIANCE, 4000)
    gap = x0 - MEAN
    log_p = -0.5 * np.einsum("pi,ij,pj->p", gap, np.linalg.inv(COVARIANCE), gap)
    log_p = log_p - 0.5 * np.linalg.slogdet(2 * np.pi * COVARIANCE)[1]
    excess = log_p - _expected(Chain.of(family.denoiser, 1000), network, x0)
    assert 0.0 < excess.mean() < 0.05


@pytest.mark.parametrize("mean", [-1.3, -1.0, -0.2, 0.999, 1.4])
@pytest.mark.parametrize("sd", [1e-3, 0.05, 3.0])
def test_decoder_sums_to_one_over_the_levels(mean: float, sd: float) -> None:
    space = levels_space(1, 256)
    values = torch.linspace(-1.0, 1.0, 256).reshape(-1, 1)
    masses = np.exp(log_decoder(space, values, torch.full_like(values, mean), sd))
    assert masses.sum() == pytest.approx(1.0, abs=1e-9)


def test_bound_of_levels_is_below_the_probability_that_sums_to_one() -> None:
    """A bound on every one of the 25 images of two 5-level pixels: their exponentials sum to at most 1."""
    section = diffusion("vp", variance="fixed_large")
    space = levels_space(2, 5)
    network = GaussianDenoiser(section, np.zeros(2), 0.2 * np.eye(2))
    data = np.array(list(itertools.product(range(5), repeat=2)), np.uint8)
    parameters = {"steps": 50, "probes": 64}
    asked = request(Operation.LIKELIHOOD, "variational_bound", len(data), data=data, parameters=parameters)
    result = answer(family_of(section, space), network, asked)
    assert isinstance(result, Scored)
    total = np.exp(result.log_prob).sum()
    assert total < 1.0 + 0.05
    np.testing.assert_allclose(result.bits_per_dim, -result.log_prob / (2 * np.log(2.0)))
