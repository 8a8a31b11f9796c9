"""Log-densities over the wire against closed forms, within solver tolerance or standard errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pxserve import Client, PxserveError
from pxserve.results import BaseMeasure, LikelihoodKind, Likelihoods
from tests.analytic.ar.chains import every_row
from tests.analytic.diffusion.gaussian import (
    COVARIANCE,
    GEOMETRIC,
    MEAN,
    GaussianDenoiser,
    diffusion,
    flow_law,
)
from tests.analytic.latent.closed_form import GIVEN, LOG_P, LOG_P_HALF, SIGMA, X
from tests.analytic.served.packages import (
    COVARIANCES,
    FLOW_COVARIANCE,
    FLOW_MEAN,
    MEANS,
    WEIGHTS,
    WIDE_COVARIANCE,
    WIDE_MEAN,
    WRONG_VAE,
)
from tests.analytic.served.truth import CHAIN, FALSE_ALARM, VAE, Floats, Normal, Z, kolmogorov_bound

pytestmark = pytest.mark.xdist_group("analytic")

ODE = "probability_flow_ode"
POINTS = 200


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("model", ["gaussian-flow", "gaussian-flow-script"])
def test_the_density_of_a_flow_is_the_data_s_in_data_units(client: Client, model: str) -> None:
    law = Normal(FLOW_MEAN, FLOW_COVARIANCE)
    x = law.draw(50, rng(3))
    scored = client.likelihood(model, x, method=ODE, steps=48)
    assert (scored.kind, scored.target) == (LikelihoodKind.ESTIMATE, "probability_flow")
    assert scored.base_measure is BaseMeasure.LEBESGUE
    np.testing.assert_allclose(scored.log_prob, law.log_density(x), atol=3e-4)


@pytest.mark.parametrize("model", ["gaussian-ve", "gaussian-edm"])
def test_exploding_processes_have_the_density_of_their_flow(client: Client, model: str) -> None:
    network = GaussianDenoiser(diffusion("ve"), MEAN, COVARIANCE)
    high = GEOMETRIC.sigmas[-1]
    law = Normal(*flow_law(network, GEOMETRIC.sigmas[0], high, high))
    x = Normal(MEAN, COVARIANCE).draw(50, rng(3))
    scored = client.likelihood(model, x, method=ODE, steps=64)
    assert scored.solver_error is not None
    assert scored.solver_error.max() < 2e-3
    np.testing.assert_allclose(scored.log_prob, law.log_density(x), atol=1e-3)


def test_the_density_of_a_mixture_has_its_known_values(client: Client) -> None:
    x = np.concatenate([np.zeros((1, 2)), MEANS]).astype(np.float32)
    scored = client.likelihood("mixture-flow", x, method=ODE, steps=96)
    np.testing.assert_allclose(scored.log_prob, [-1.51559, 0.78320, 1.21167], atol=1e-3)
    assert scored.solver_error is not None
    parts = [
        np.log(w) + Normal(m, c).log_density(x) for w, m, c in zip(WEIGHTS, MEANS, COVARIANCES, strict=True)
    ]
    np.testing.assert_allclose(scored.log_prob, np.logaddexp(*parts), atol=1e-3)


def test_standard_errors_of_probes_cover(client: Client) -> None:
    law = Normal(WIDE_MEAN, WIDE_COVARIANCE)
    x = law.draw(POINTS, rng(5))
    scored = client.likelihood("gaussian-wide", x, method=ODE, steps=12, probes=12, seed=5)
    held_by(scored, law.log_density(x), degrees=11)


def held_by(scored: Likelihoods, truth: Floats, degrees: int) -> None:
    """(estimate - truth) / standard error follows Student's law of that many degrees of freedom."""
    assert scored.standard_error is not None
    t = (scored.log_prob - truth) / scored.standard_error
    found = stats.kstest(t, stats.t(degrees).cdf).statistic
    assert found < kolmogorov_bound(len(t)), f"Kolmogorov-Smirnov distance {found:.3f}"


@pytest.mark.parametrize("model", ["chain", "chain-script"])
def test_a_chain_is_scored_exactly(client: Client, model: str) -> None:
    words = CHAIN.draw(200, rng(7))
    scored = client.likelihood(model, words)
    assert (scored.kind, scored.base_measure) == (LikelihoodKind.EXACT, BaseMeasure.COUNTING)
    np.testing.assert_allclose(scored.log_prob, CHAIN.log_prob(words), atol=1e-5)
    np.testing.assert_allclose(scored.bits_per_dim, -scored.log_prob / (8 * np.log(2)), rtol=1e-12)


def test_the_probabilities_of_all_words_sum_to_one(client: Client) -> None:
    """Of every beginning of four symbols, the rest summed out by the server."""
    words = np.pad(every_row(4), ((0, 0), (0, 4)))
    observed = np.arange(8) < 4
    scored = client.likelihood("chain", words, observed=observed)
    np.testing.assert_allclose(np.exp(scored.log_prob).sum(), 1.0, atol=1e-5)


@pytest.mark.parametrize("method", ["elbo", "iwae", "ais"])
def test_with_the_exact_encoder_every_weight_is_the_density(client: Client, method: str) -> None:
    x = VAE.draw(50, rng(9))
    x[0] = X
    scored = client.likelihood("vae-exact", x, method=method, importance_samples=64, seed=1)
    assert scored.log_prob[0] == pytest.approx(LOG_P, abs={"elbo": 1.0, "iwae": 1e-4, "ais": 0.2}[method])
    if method == "iwae":
        np.testing.assert_allclose(scored.log_prob, VAE.log_density(x), atol=1e-4)
        return
    assert scored.standard_error is not None
    z = (scored.log_prob - VAE.log_density(x)) / np.maximum(scored.standard_error, 1e-4)
    assert abs(z.mean()) * np.sqrt(50) < Z


def test_the_bound_of_a_wrong_encoder_loses_its_divergence(client: Client) -> None:
    x = VAE.draw(POINTS, rng(11))
    scored = client.likelihood("vae-wrong", x, method="elbo", importance_samples=200, seed=2)
    assert scored.kind is LikelihoodKind.LOWER_BOUND
    held_by(scored, VAE.log_density(x) - WRONG_VAE.gap(), degrees=199)
    np.testing.assert_allclose(sum(scored.terms.values()), scored.log_prob, rtol=1e-9)


def test_importance_sampling_is_unbiased_and_its_standard_errors_cover(client: Client) -> None:
    x = VAE.draw(POINTS, rng(13))
    scored = client.likelihood("vae-wrong", x, method="iwae", importance_samples=2000, seed=3)
    held_by(scored, VAE.log_density(x), degrees=1999)
    ratio = np.exp(scored.log_prob - VAE.log_density(x))
    assert abs(ratio.mean() - 1.0) < Z * ratio.std() / np.sqrt(POINTS)
    assert scored.kind is LikelihoodKind.STOCHASTIC_LOWER_BOUND


def test_evidence_of_given_entries_is_the_marginal_density(client: Client) -> None:
    scored = client.likelihood(
        "vae-wrong",
        X[None].astype(np.float32),
        observed=GIVEN,
        method="iwae",
        importance_samples=20_000,
        seed=4,
    )
    assert scored.standard_error is not None
    assert abs(scored.log_prob[0] - LOG_P_HALF) < Z * scored.standard_error[0]
    assert scored.scored_dims[0] == 2


def test_annealing_finds_the_density_of_a_linear_generator(client: Client) -> None:
    x = VAE.draw(24, rng(15))
    scored = client.likelihood(
        "linear-gan", x, surrogate_sigma=SIGMA, steps=100, importance_samples=32, seed=5
    )
    assert (scored.kind, scored.target) == (LikelihoodKind.SURROGATE, "p_sigma")
    gap = scored.log_prob - VAE.log_density(x)
    ratio = np.exp(gap)
    assert abs(ratio.mean() - 1.0) < Z * ratio.std() / np.sqrt(len(x))
    assert gap.max() < -np.log(FALSE_ALARM / len(x))  # Markov's inequality: an unbiased estimate


@pytest.mark.parametrize(
    ("model", "reason"), [("linear-gan", "surrogate_sigma"), ("pca-autoencoder", "p(x)")]
)
def test_without_a_density_there_is_no_number(client: Client, model: str, reason: str) -> None:
    with pytest.raises(PxserveError) as caught:
        client.likelihood(model, np.zeros((1, 4), np.float32))
    assert caught.value.code.name == "FAILED_PRECONDITION"
    assert reason in str(caught.value)


def test_bounds_are_ordered_within_one_target(client: Client) -> None:
    x = VAE.draw(POINTS, rng(17))
    found = {
        method: client.likelihood("vae-wrong", x, method=method, importance_samples=16, seed=6).log_prob
        for method in ("elbo", "iwae", "ais")
    }
    for lower, upper in (("elbo", "iwae"), ("iwae", "ais")):
        difference = found[upper] - found[lower]
        assert difference.mean() > -Z * difference.std() / np.sqrt(POINTS)
