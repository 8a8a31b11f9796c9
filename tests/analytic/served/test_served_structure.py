"""Latents and p-values over the wire against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from pxserve import Client, PxserveError
from tests.analytic.latent.closed_form import B, X
from tests.analytic.served.conftest import CALIBRATION_ROWS
from tests.analytic.served.packages import BASIS, EXACT_VAE, FLOW_COVARIANCE, FLOW_MEAN
from tests.analytic.served.truth import (
    AUTOENCODER_ROWS,
    CHAIN,
    VAE,
    Floats,
    Markov,
    Normal,
    Z,
    floats,
    kolmogorov_bound,
    largest_z,
    residual,
    smirnov_bound,
)

pytestmark = pytest.mark.xdist_group("analytic")

ROWS = 1000


LAWS: dict[str, Normal | Markov] = {"vae-exact": VAE, "chain": CHAIN, "pca-autoencoder": AUTOENCODER_ROWS}


def rows_of(model: str) -> NDArray[np.float32] | NDArray[np.int32]:
    return LAWS[model].draw(ROWS, np.random.default_rng(99))


@pytest.mark.parametrize("model", ["vae-exact", "chain", "pca-autoencoder"])
def test_p_values_of_rows_from_the_calibration_s_law_are_uniform(client: Client, model: str) -> None:
    """Distance of two empirical laws: calibration rows and new rows, both exact draws."""
    found = client.score_anomaly(model, rows_of(model), seed=1)
    assert found.p_value is not None
    assert found.calibration_size == CALIBRATION_ROWS
    ends = np.arange(1, CALIBRATION_ROWS + 2) / (CALIBRATION_ROWS + 1)
    distance = np.max((found.p_value[:, None] <= ends).mean(axis=0) - ends)
    assert distance < smirnov_bound(ROWS, CALIBRATION_ROWS)
    if model != "chain":  # ties of discrete rows make p-values larger, never smaller
        whole = stats.kstest(found.p_value, "uniform").statistic
        assert whole < smirnov_bound(ROWS, CALIBRATION_ROWS)


@pytest.mark.parametrize("model", ["vae-exact", "pca-autoencoder"])
def test_p_values_of_foreign_rows_are_not(client: Client, model: str) -> None:
    """Negative control: rows half as wide again."""
    rows = ((rows_of(model) - B) * 1.5 + B).astype(np.float32)
    found = client.score_anomaly(model, rows, seed=1)
    assert found.p_value is not None
    assert stats.kstest(found.p_value, "uniform").statistic > smirnov_bound(ROWS, CALIBRATION_ROWS)


def test_scores_are_what_they_say(client: Client) -> None:
    rows = AUTOENCODER_ROWS.draw(50, np.random.default_rng(5))
    found = client.score_anomaly("pca-autoencoder", rows, score_map=True)
    np.testing.assert_allclose(found.score, residual(rows, BASIS), rtol=1e-4, atol=1e-6)
    assert found.score_map is not None
    np.testing.assert_allclose(floats(found.score_map).sum(axis=1), found.score, rtol=1e-5)


def test_without_a_calibration_there_is_no_p_value(client: Client) -> None:
    with pytest.raises(PxserveError, match="calibrat") as caught:
        client.score_anomaly("gaussian-flow", np.zeros((1, 2), np.float32))
    assert caught.value.code.name == "FAILED_PRECONDITION"


def test_codes_of_a_vae_are_its_posterior(client: Client) -> None:
    row = X[None].astype(np.float32)
    mean = client.encode("vae-exact", row, method="mean").latents[0]
    np.testing.assert_allclose(mean, EXACT_VAE.posterior_mean(X), atol=1e-5)
    drawn = client.encode("vae-exact", np.repeat(row, 1024, axis=0), method="sample", seed=3).latents
    law = Normal(EXACT_VAE.posterior_mean(X), np.diag(EXACT_VAE.posterior_variance))
    assert largest_z(np.asarray(drawn, np.float64), law) < Z


def square_root(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(values)) @ vectors.T, np.float64)


def test_latents_of_a_flow_are_whitened_rows(client: Client) -> None:
    """The flow keeps the covariance's eigenvectors: z = C^(-1/2) (x - mean); decoding turns it around."""
    x = Normal(FLOW_MEAN, FLOW_COVARIANCE).draw(200, np.random.default_rng(4))
    encoded = client.encode("gaussian-flow", x, steps=128, round_trip=True)
    truth = np.linalg.solve(square_root(FLOW_COVARIANCE), (x - FLOW_MEAN).T).T
    np.testing.assert_allclose(floats(encoded.latents), truth, atol=0.02)  # Heun's method, 128 steps
    assert encoded.round_trip_error is not None
    assert encoded.round_trip_error.max() < 2e-3
    back = client.decode("gaussian-flow", encoded.latents, steps=128).data
    np.testing.assert_allclose(floats(back), floats(x), atol=5e-3)


def test_randomised_latents_of_a_chain_are_standard_normal(client: Client) -> None:
    words = CHAIN.draw(1000, np.random.default_rng(8))
    method = "randomized_probability_integral_transform"
    latents = client.encode("chain", words, method=method, seed=2).latents
    for place in range(8):
        assert stats.kstest(latents[:, place], "norm").statistic < kolmogorov_bound(1000)
    np.testing.assert_array_equal(client.decode("chain", latents).data, words)


def test_an_autoencoder_projects(client: Client) -> None:
    rows = rows_of("pca-autoencoder")[:20]
    found = client.reconstruct("pca-autoencoder", rows)
    np.testing.assert_allclose(floats(found.data), B + (rows - B) @ BASIS @ BASIS.T, atol=1e-5)
    again = client.reconstruct("pca-autoencoder", found.data)
    np.testing.assert_allclose(floats(again.data), floats(found.data), atol=1e-5)
