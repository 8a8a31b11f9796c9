"""Completions over the wire against conditional laws; and the ways that are known to be wrong, failing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pxserve import Client
from pxserve.results import CompletionKind, Completions
from tests.analytic.ar.chains import KNOWN, LAST_GAP, LAST_GAP_LEFT_ONLY, LOG_EVIDENCE, OBSERVED, posterior
from tests.analytic.latent.closed_form import (
    CONDITIONAL_COVARIANCE,
    CONDITIONAL_MEAN,
    GIVEN,
    LOG_P_HALF,
    SIGMA,
    B,
    W,
    X,
)
from tests.analytic.served.packages import BASIS, COVARIANCE3, FLOW_COVARIANCE, FLOW_MEAN, MEAN3
from tests.analytic.served.truth import FALSE_ALARM, VAE, Floats, Normal, Z, g_test, largest_z

pytestmark = pytest.mark.xdist_group("analytic")

CONDITIONAL = Normal(CONDITIONAL_MEAN, CONDITIONAL_COVARIANCE)
HALF = np.where(GIVEN, X, np.nan).astype(np.float32)[None]
FIRST = np.array([True, False])
FLOW_VALUE = FLOW_MEAN[0] + 1.0 * np.sqrt(FLOW_COVARIANCE[0, 0])
PARTICLE_MEAN, PARTICLE_VARIANCE = 0.1, 0.1  # bias of 32 particles, in conditional standard deviations


def missing(completed: Completions, known: NDArray[np.bool_], row: NDArray[np.floating]) -> Floats:
    """Unknown entries [rows * n, D], after checking that the known ones are the caller's bits."""
    data = completed.data.reshape(-1, completed.data.shape[-1])
    kept = np.broadcast_to(row[known].astype(np.float32), (len(data), int(known.sum())))
    np.testing.assert_array_equal(data[:, known], kept)
    return np.asarray(data[:, ~known], np.float64)


def gibbs(client: Client, model: str, method: str, sweeps: int) -> Floats:
    parts = [
        client.inpaint(model, HALF, GIVEN, n=1024, seed=seed, method=method, sweeps=sweeps)
        for seed in range(4)
    ]
    return np.concatenate([missing(part, GIVEN, X) for part in parts])


@pytest.mark.parametrize("model", ["vae-exact", "vae-wrong"])
def test_metropolis_within_gibbs_draws_from_the_conditional_law(client: Client, model: str) -> None:
    assert largest_z(gibbs(client, model, "metropolis_within_gibbs", 60), CONDITIONAL) < Z


def test_pseudo_gibbs_is_right_with_the_exact_encoder_alone(client: Client) -> None:
    assert largest_z(gibbs(client, "vae-exact", "pseudo_gibbs", 40), CONDITIONAL) < Z
    wrong = gibbs(client, "vae-wrong", "pseudo_gibbs", 40)  # negative control
    shift = (wrong.mean(axis=0) - CONDITIONAL_MEAN) / np.sqrt(np.diag(CONDITIONAL_COVARIANCE))
    assert np.abs(shift).max() > 0.4


def test_importance_resampling_knows_the_evidence(client: Client) -> None:
    rows = np.repeat(HALF, 512, axis=0)
    found = client.inpaint("vae-wrong", rows, GIVEN, seed=2, method="importance", particles=400)
    assert found.kind is CompletionKind.CONSISTENT
    assert found.log_evidence is not None
    ratio = np.exp(found.log_evidence - LOG_P_HALF)
    assert abs(ratio.mean() - 1.0) < Z * ratio.std() / np.sqrt(len(rows))


def chain(client: Client, method: str, model: str = "chain", n: int = 1024) -> Completions:
    parameters = {"particles": 64} if method == "smc" else {}
    return client.inpaint(model, KNOWN, OBSERVED, n=n, seed=7, method=method, **parameters)  # type: ignore[arg-type]


def last_gap(completed: Completions) -> Floats:
    np.testing.assert_array_equal(
        completed.data[0, :, OBSERVED[0]].T, np.repeat(KNOWN[:, OBSERVED[0]], 1024, 0)
    )
    return np.bincount(completed.data[0, :, 5], minlength=4).astype(np.float64)


@pytest.mark.parametrize("model", ["chain", "chain-script"])
def test_enumeration_draws_whole_gaps_from_the_exact_posterior(client: Client, model: str) -> None:
    completed = chain(client, "enumerate", model)
    assert completed.kind is CompletionKind.EXACT
    assert completed.log_evidence is not None
    assert completed.log_evidence[0] == pytest.approx(LOG_EVIDENCE, abs=1e-5)
    rows, joint = posterior(KNOWN[0], OBSERVED[0])
    code = 4 ** np.arange(8)
    place = {int(value): i for i, value in enumerate(rows @ code)}
    counts = np.bincount([place[int(v)] for v in completed.data[0] @ code], minlength=len(rows))
    assert g_test(counts.astype(np.float64), np.exp(joint - LOG_EVIDENCE)) > FALSE_ALARM


def test_particles_foresee_what_is_known_to_the_right(client: Client) -> None:
    completed = chain(client, "smc")
    assert completed.kind is CompletionKind.CONSISTENT
    assert completed.log_evidence is not None
    share = last_gap(completed) / 1024
    spread = Z * np.sqrt(LAST_GAP * (1 - LAST_GAP) / 1024)
    assert np.all(np.abs(share - LAST_GAP) < spread + 0.03)  # 64 particles: 0.023 in total variation
    one_sided = LOG_EVIDENCE - np.log(FALSE_ALARM)  # Markov's inequality: an unbiased estimate
    assert completed.log_evidence[0] < one_sided


def test_left_to_right_ignores_what_is_known_to_the_right(client: Client) -> None:
    """Negative control: it draws from its own law, which is not the posterior."""
    counts = last_gap(chain(client, "left_to_right"))
    assert g_test(counts, LAST_GAP_LEFT_ONLY / LAST_GAP_LEFT_ONLY.sum()) > FALSE_ALARM
    assert g_test(counts, LAST_GAP / LAST_GAP.sum()) < FALSE_ALARM


def test_particles_complete_a_gaussian_flow(client: Client) -> None:
    row = np.array([[FLOW_VALUE, 0.0]], np.float32)
    law = Normal(FLOW_MEAN, FLOW_COVARIANCE).given(FIRST, row[0, :1].astype(np.float64))
    completed = client.inpaint(
        "gaussian-flow", row, FIRST, n=512, seed=1, method="smc", steps=60, particles=32
    )
    assert completed.kind is CompletionKind.CONSISTENT
    draws = missing(completed, FIRST, row[0])[:, 0]
    sd = np.sqrt(law.covariance[0, 0])
    assert abs(draws.mean() - law.mean[0]) / sd < PARTICLE_MEAN + Z / np.sqrt(512)
    assert abs(draws.var() / sd**2 - 1.0) < PARTICLE_VARIANCE + Z * np.sqrt(2 / 512)


def test_plain_replacement_does_not_draw_from_the_conditional_law(client: Client) -> None:
    """Negative control: it goes only part of the way to the conditional mean, and is too wide."""
    known = np.array([True, False, False])
    row = (MEAN3 + np.sqrt(np.diag(COVARIANCE3))).astype(np.float32)
    law = Normal(MEAN3, COVARIANCE3).given(known, row[:1].astype(np.float64))
    completed = client.inpaint(
        "gaussian-vp", row[None], known, n=1024, seed=1, method="replacement", steps=100
    )
    assert completed.kind is CompletionKind.APPROXIMATE
    draws = missing(completed, known, row)
    assert largest_z(draws, law) > Z
    moved = (draws[:, 0].mean() - MEAN3[1]) / (law.mean[0] - MEAN3[1])
    assert moved < 0.9


def test_an_autoencoder_completes_to_its_fixed_point(client: Client) -> None:
    known = np.array([True, False, True, True])
    plane = BASIS @ BASIS.T
    inside, across = plane[np.ix_(~known, ~known)], plane[np.ix_(~known, known)]
    truth = B[~known] + np.linalg.solve(np.eye(1) - inside, across @ (X - B)[known])
    row = np.where(known, X, np.nan).astype(np.float32)[None]
    completed = client.inpaint("pca-autoencoder", row, known, sweeps=400)
    assert completed.kind is CompletionKind.POINT_ESTIMATE
    np.testing.assert_allclose(missing(completed, known, X)[0], truth, atol=1e-5)


def test_a_linear_generator_completes_by_the_ridge_solution(client: Client) -> None:
    row = np.where(GIVEN, X, np.nan).astype(np.float32)[None]
    inverse = client.encode("linear-gan", X[None].astype(np.float32)).latents
    known = client.inpaint("linear-gan", row, GIVEN, seed=1)
    assert known.kind is CompletionKind.POINT_ESTIMATE
    at_all, at_half = (
        np.linalg.lstsq(W[mask], (X - B)[mask], rcond=None)[0] for mask in (GIVEN | True, GIVEN)
    )
    np.testing.assert_allclose(inverse[0], at_all, atol=0.02)  # the prior pulls by sigma^2, 1e-2 or less
    np.testing.assert_allclose(missing(known, GIVEN, X)[0], (W @ at_half + B)[~GIVEN], atol=0.05)


def test_conditional_law_of_the_vae_is_that_of_its_joint_law() -> None:
    """The golden numbers of this file agree with the joint covariance that the sampler is held to."""
    given = VAE.given(GIVEN, X[GIVEN])
    np.testing.assert_allclose(given.mean, CONDITIONAL_MEAN, atol=1e-6)
    np.testing.assert_allclose(given.covariance, CONDITIONAL_COVARIANCE, atol=1e-6)
    assert VAE.marginal(GIVEN).log_density(X[GIVEN][None])[0] == pytest.approx(LOG_P_HALF, abs=1e-6)
    assert SIGMA == 0.3
