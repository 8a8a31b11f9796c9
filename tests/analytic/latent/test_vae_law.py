from __future__ import annotations

import numpy as np
import pytest

from serving.errors import FailedPrecondition
from serving.families.calibration import Calibration
from serving.families.latent.vae import VaeFamily
from serving.families.request import Operation
from serving.families.result import (
    Anomalies,
    Decoded,
    Encoded,
    Interpolated,
    Reconstructed,
    Sampled,
    SampleKind,
)
from tests.analytic.latent.closed_form import SIGMA, B, LinearVae, W, X, Z, ask, repeated

MODEL = LinearVae()
FAMILY = VaeFamily(MODEL.spec)
COVARIANCE = W @ W.T + SIGMA**2 * np.eye(4)


def sample(rows: int, noise: bool, first_row: int = 0) -> Sampled:
    result = ask(
        FAMILY,
        MODEL.networks,
        Operation.SAMPLE,
        None,
        {"observation_noise": noise},
        rows=rows,
        first_row=first_row,
    )
    assert isinstance(result, Sampled)
    return result


@pytest.mark.parametrize(("noise", "covariance"), [(True, COVARIANCE), (False, W @ W.T)])
def test_samples_follow_the_declared_law(noise: bool, covariance: np.ndarray) -> None:
    rows = 20_000
    result = sample(rows, noise)
    assert result.kind is (SampleKind.EXACT if noise else SampleKind.MODIFIED)
    data = np.asarray(result.data, np.float64)
    variance = np.diag(covariance)
    assert (np.abs(data.mean(axis=0) - B) < Z * np.sqrt(variance / rows)).all()
    spread = np.sqrt((np.outer(variance, variance) + covariance**2) / rows)
    assert (np.abs(np.cov(data.T) - covariance) < Z * spread).all()


def test_rows_are_functions_of_seed_and_number() -> None:
    whole = sample(9, True).data
    np.testing.assert_array_equal(sample(4, True).data, whole[:4])
    np.testing.assert_array_equal(sample(2, True, first_row=7).data, whole[7:])


def test_encodings_are_the_posterior() -> None:
    mean = ask(FAMILY, MODEL.networks, Operation.ENCODE, "mean", {"round_trip": True}, data=repeated(X, 1))
    assert isinstance(mean, Encoded)
    np.testing.assert_allclose(mean.latents[0], MODEL.posterior_mean(X), atol=1e-6)
    assert mean.round_trip_error is not None
    again = MODEL.weights @ MODEL.posterior_mean(X) + B
    assert mean.round_trip_error[0] == pytest.approx(np.sqrt(np.square(X - again).mean()), abs=1e-6)
    drawn = ask(FAMILY, MODEL.networks, Operation.ENCODE, "sample", data=repeated(X, 5000))
    assert isinstance(drawn, Encoded)
    errors = (drawn.latents - MODEL.posterior_mean(X)) / np.sqrt(MODEL.posterior_variance)
    assert np.abs(errors.mean(axis=0)).max() < Z / np.sqrt(5000)
    assert np.abs(errors.var(axis=0) - 1.0).max() < Z * np.sqrt(2 / 5000)


def test_decoding_reconstruction_and_interpolation_agree() -> None:
    ends = np.stack([X, X + 1.0]).astype(np.float32)
    through = ask(FAMILY, MODEL.networks, Operation.RECONSTRUCT, data=ends)
    encoded = ask(FAMILY, MODEL.networks, Operation.ENCODE, data=ends)
    assert isinstance(encoded, Encoded)
    decoded = ask(FAMILY, MODEL.networks, Operation.DECODE, latents=encoded.latents)
    walk = ask(
        FAMILY,
        MODEL.networks,
        Operation.INTERPOLATE,
        None,
        {"points": 5, "path": "lerp"},
        data=ends[:1],
        end=ends[1:],
    )
    assert isinstance(through, Reconstructed)
    assert isinstance(decoded, Decoded)
    assert isinstance(walk, Interpolated)
    np.testing.assert_array_equal(through.data, decoded.data)
    np.testing.assert_allclose(
        np.asarray(walk.data[0, [0, 4]], float), np.asarray(through.data, float), atol=1e-6
    )
    np.testing.assert_allclose(walk.data[0, 2], through.data.mean(axis=0), atol=1e-6)
    assert walk.path == "lerp"


def statistic(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    data = sample(rows, True, first_row=seed * 100_000).data.astype(np.float32)
    raw = ask(FAMILY, MODEL.networks, Operation.SCORE_ANOMALY, data=data, statistics=True)
    assert isinstance(raw, Anomalies)
    return raw.score, data


def test_typicality_is_the_distance_from_the_entropy() -> None:
    raw, data = statistic(200, 0)
    difference = data - B
    truth = 0.5 * (difference * np.linalg.solve(COVARIANCE, difference.T).T).sum(axis=1)
    truth += 0.5 * np.linalg.slogdet(2 * np.pi * COVARIANCE)[1]
    np.testing.assert_allclose(raw, truth, atol=1e-4)


def test_conformal_p_values_are_super_uniform_on_model_samples() -> None:
    calibration = Calibration.fit(
        "p", {"typicality": statistic(499, 1)[0]}, {"typicality": statistic(500, 2)[0]}
    )
    family = VaeFamily(MODEL.spec, calibration)
    data = statistic(2000, 3)[1]
    result = ask(family, MODEL.networks, Operation.SCORE_ANOMALY, None, {"score_map": True}, data=data)
    assert isinstance(result, Anomalies)
    assert result.p_value is not None
    assert result.score_map is not None
    assert result.score_map.shape == (2000, 4)
    assert (result.calibration_size, result.calibration_digest) == (499, calibration.digest)
    for level in (0.01, 0.05, 0.2, 0.5):  # the calibration set itself is a draw: its quantile varies too
        slack = Z * np.sqrt(level * (1 - level) * (1 / 2000 + 1 / 500))
        assert (result.p_value <= level).mean() < level + slack
    strange = ask(family, MODEL.networks, Operation.SCORE_ANOMALY, data=repeated(B, 1) + 9.0)
    dull = ask(family, MODEL.networks, Operation.SCORE_ANOMALY, data=repeated(B, 1))
    assert isinstance(strange, Anomalies)
    assert isinstance(dull, Anomalies)
    assert strange.p_value == pytest.approx(1 / 500)
    assert dull.score[0] > 1.0  # the mode is not typical: more likely than likely


def test_without_calibration_there_is_no_score() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        ask(FAMILY, MODEL.networks, Operation.SCORE_ANOMALY, data=repeated(X, 1))
    assert caught.value.reason == "NOT_CALIBRATED"
