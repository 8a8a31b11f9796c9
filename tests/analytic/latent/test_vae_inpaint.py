from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from serving.families.latent.vae import VaeFamily
from serving.families.request import Operation, Value
from serving.families.result import Completed, CompletionKind
from tests.analytic.latent.closed_form import (
    CONDITIONAL_COVARIANCE,
    CONDITIONAL_MEAN,
    GIVEN,
    LOG_P_HALF,
    LinearVae,
    X,
    Z,
    ask,
    repeated,
)

EXACT, WRONG = LinearVae(), LinearVae(inflation=1.5, shift=0.1)
SD = np.sqrt(np.diag(CONDITIONAL_COVARIANCE))


def complete(
    model: LinearVae,
    method: str,
    parameters: Mapping[str, Value],
    *,
    rows: int = 1,
    completions: int = 1,
    first_row: int = 0,
) -> Completed:
    data = repeated(np.where(GIVEN, X, np.nan), rows)  # what is not given is never read
    observed = np.repeat(GIVEN[None], rows, axis=0)
    result = ask(
        VaeFamily(model.spec), model.networks, Operation.INPAINT, method, parameters, data=data,
        observed=observed, completions=completions, first_row=first_row,
    )  # fmt: skip
    assert isinstance(result, Completed)
    return result


def errors(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the mean in standard deviations; of the covariance in standard errors."""
    missing = draws.reshape(-1, 4)[:, 2:].astype(np.float64)
    spread = np.sqrt((np.outer(SD**2, SD**2) + CONDITIONAL_COVARIANCE**2) / len(missing))
    return (missing.mean(axis=0) - CONDITIONAL_MEAN) / SD, (
        np.cov(missing.T) - CONDITIONAL_COVARIANCE
    ) / spread


def test_metropolis_within_gibbs_draws_from_the_conditional_law() -> None:
    result = complete(WRONG, "metropolis_within_gibbs", {"sweeps": 60}, completions=12_000)
    mean, covariance = errors(result.data)
    assert np.abs(mean).max() < Z / np.sqrt(12_000)
    assert np.abs(covariance).max() < Z
    assert result.kind is CompletionKind.CONSISTENT


def test_pseudo_gibbs_is_right_only_with_the_exact_encoder() -> None:
    right = complete(EXACT, "pseudo_gibbs", {"sweeps": 40}, completions=8000)
    assert np.abs(errors(right.data)[0]).max() < Z / np.sqrt(8000)
    wrong = complete(WRONG, "pseudo_gibbs", {"sweeps": 40}, completions=8000)
    assert np.abs(errors(wrong.data)[0]).max() > 0.4
    assert wrong.kind is CompletionKind.APPROXIMATE


def test_importance_resampling_draws_from_the_conditional_law() -> None:
    result = complete(WRONG, "importance", {"particles": 200}, rows=4000)
    mean, covariance = errors(result.data)
    assert np.abs(mean).max() < Z / np.sqrt(4000) + 0.01  # bias of order 1 / effective size
    assert np.abs(covariance).max() < Z + 1.0
    assert result.log_evidence is not None
    ratio = np.exp(result.log_evidence - LOG_P_HALF)
    assert abs(ratio.mean() - 1.0) < Z * ratio.std() / np.sqrt(4000)
    assert result.effective_sample_size is not None
    assert 20 < result.effective_sample_size.mean() < 200


@pytest.mark.parametrize(
    ("method", "parameters", "slack"),
    [("importance", {"particles": 20_000}, 0.1), ("metropolis_within_gibbs", {"sweeps": 200}, 0.1)],
)
def test_moments_are_the_conditional_ones(method: str, parameters: dict[str, Value], slack: float) -> None:
    result = complete(WRONG, method, {**parameters, "moments": True}, completions=60)
    assert result.mean is not None
    assert result.variance is not None
    np.testing.assert_array_equal(result.mean[0, :2], X[:2].astype(np.float32))
    np.testing.assert_array_equal(result.variance[0, :2], 0.0)
    np.testing.assert_allclose((result.mean[0, 2:] - CONDITIONAL_MEAN) / SD, 0.0, atol=slack)
    np.testing.assert_allclose(result.variance[0, 2:] / SD**2, 1.0, atol=slack)


@pytest.mark.parametrize("method", ["metropolis_within_gibbs", "importance", "pseudo_gibbs"])
def test_given_entries_return_bit_for_bit(method: str) -> None:
    parameters: dict[str, Value] = {"particles": 8} if method == "importance" else {"sweeps": 4}
    data = complete(WRONG, method, parameters, rows=2, completions=3).data
    assert data.dtype == np.float32
    assert data.shape == (2, 3, 4)
    np.testing.assert_array_equal(data[..., :2], np.broadcast_to(X[:2].astype(np.float32), (2, 3, 2)))
    assert np.isfinite(np.asarray(data, np.float64)).all()


@pytest.mark.parametrize("method", ["metropolis_within_gibbs", "importance", "pseudo_gibbs"])
def test_a_completion_depends_on_its_row_and_number_alone(method: str) -> None:
    parameters: dict[str, Value] = {"particles": 32} if method == "importance" else {"sweeps": 12}
    whole = complete(WRONG, method, parameters, rows=5, completions=4).data
    fewer = complete(WRONG, method, parameters, rows=3, completions=2).data
    np.testing.assert_array_equal(whole[:3, :2], fewer)
    last = complete(WRONG, method, parameters, completions=4, first_row=4).data
    np.testing.assert_array_equal(whole[4:], last)
    assert len(np.unique(whole[..., 2])) == 20
