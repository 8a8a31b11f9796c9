from __future__ import annotations

import numpy as np
import pytest

from export.package.schema import Affine
from serving.errors import InvalidArgument
from serving.families.latent.vae import VaeFamily
from serving.families.request import Operation, Value
from serving.families.result import BaseMeasure, LikelihoodKind, Scored
from tests.analytic.latent.closed_form import (
    GIVEN,
    LOG_P,
    LOG_P_HALF,
    SIGMA,
    B,
    LinearVae,
    W,
    X,
    Z,
    ask,
    log_normal,
    repeated,
)

EXACT, WRONG = LinearVae(), LinearVae(inflation=1.5, shift=0.1)


def score(model: LinearVae, method: str, rows: int = 1, half: bool = False, **parameters: Value) -> Scored:
    observed = np.repeat(GIVEN[None], rows, axis=0) if half else None
    data = repeated(np.where(GIVEN, X, np.nan) if half else X, rows)
    result = ask(
        VaeFamily(model.spec), model.networks, Operation.LIKELIHOOD, method, parameters,
        data=data, observed=observed,
    )  # fmt: skip
    assert isinstance(result, Scored)
    return result


def test_golden_numbers_agree_with_the_closed_form() -> None:
    covariance = W @ W.T + SIGMA**2 * np.eye(4)
    assert log_normal(X, B, covariance) == pytest.approx(LOG_P, abs=1e-6)
    assert log_normal(X[:2], B[:2], covariance[:2, :2]) == pytest.approx(LOG_P_HALF, abs=1e-6)


def test_with_the_exact_encoder_every_weight_is_the_evidence() -> None:
    for samples in (1, 2, 50):
        result = score(EXACT, "iwae", importance_samples=samples)
        assert result.log_prob == pytest.approx(LOG_P, abs=2e-6)
    assert result.effective_sample_size == pytest.approx(50.0)
    assert result.standard_error == pytest.approx(0.0, abs=1e-8)
    assert (result.kind, result.base_measure) == (LikelihoodKind.STOCHASTIC_LOWER_BOUND, BaseMeasure.LEBESGUE)
    assert result.network_evaluations is not None
    assert result.network_evaluations.tolist() == [51]


def test_elbo_is_the_evidence_less_the_gap() -> None:
    for model in (EXACT, WRONG):
        result = score(model, "elbo", importance_samples=200_000)
        assert result.standard_error is not None
        assert abs(result.log_prob - (LOG_P - model.gap())) < Z * result.standard_error
        assert result.standard_error < 0.01
        assert result.terms["reconstruction"] + result.terms["kl"] == pytest.approx(
            result.log_prob, abs=1e-12
        )


def test_standard_errors_cover() -> None:
    for method, truth in (("elbo", LOG_P - WRONG.gap()), ("iwae", LOG_P)):
        result = score(WRONG, method, rows=400, importance_samples=400)
        assert result.standard_error is not None
        z = (result.log_prob - truth) / result.standard_error
        assert abs(z.mean()) < Z / 20 + 0.1  # iwae: bias of half a variance, about 0.04 standard errors
        assert abs(z.std() - 1.0) < Z / np.sqrt(2 * 400)


def test_iwae_weights_are_unbiased_and_their_log_is_low() -> None:
    rows, samples = 4000, 10
    result = score(WRONG, "iwae", rows=rows, importance_samples=samples)
    ratio = np.exp(result.log_prob - LOG_P)
    assert abs(ratio.mean() - 1.0) < Z * ratio.std() / np.sqrt(rows)
    bias = (result.log_prob - LOG_P).mean()
    assert bias == pytest.approx(-0.5 * ratio.var(), abs=Z * ratio.std() / np.sqrt(rows) + 0.1 * ratio.var())
    assert (result.log_prob - LOG_P).max() < 14.0


def test_given_entries_alone_have_their_marginal() -> None:
    for method, samples in (("iwae", 4000), ("ais", 16), ("ais_prior", 16)):
        result = score(EXACT, method, rows=20, half=True, importance_samples=samples)
        assert result.standard_error is not None
        mean = result.log_prob.mean()
        assert abs(mean - LOG_P_HALF) < Z * np.sqrt((result.standard_error**2).mean() / 20) + 0.01
        assert result.standard_error.max() < 0.5
        assert result.scored_dims.tolist() == [2] * 20


def test_partial_rows_lose_only_the_gap_in_the_bound() -> None:
    result = score(EXACT, "elbo", half=True, importance_samples=2000)
    assert result.log_prob[0] < LOG_P_HALF


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("method", ["ais", "ais_prior"])
def test_annealing_reaches_the_evidence(method: str, gradient: bool) -> None:
    model = LinearVae(inflation=0.3, shift=0.2, gradient=gradient)
    result = score(model, method, rows=24, steps=60, importance_samples=32)
    assert result.standard_error is not None
    ratio = np.exp(result.log_prob - LOG_P)
    assert abs(ratio.mean() - 1.0) < Z * ratio.std() / np.sqrt(24)
    assert ratio.std() < 0.5
    z = (result.log_prob - LOG_P) / result.standard_error
    assert np.abs(z).max() < 6.0


def test_density_is_reported_in_data_units() -> None:
    moved = LinearVae(transform=Affine(scale=(2.0,), shift=(1.0,)))
    data = ((X - 1.0) / 2.0)[None].astype(np.float32)
    result = ask(
        VaeFamily(moved.spec),
        moved.networks,
        Operation.LIKELIHOOD,
        "iwae",
        {"importance_samples": 3},
        data=data,
    )
    assert isinstance(result, Scored)
    assert result.log_prob == pytest.approx(LOG_P + 4 * np.log(2.0), abs=5e-6)


def test_rows_stop_at_their_own_precision() -> None:
    data = np.concatenate([repeated(X, 2), repeated(X + 2.0, 2)])
    family = VaeFamily(WRONG.spec)

    def run(part: np.ndarray, first: int) -> Scored:
        found = ask(
            family, WRONG.networks, Operation.LIKELIHOOD, "iwae",
            {"importance_samples": 16, "target_standard_error": 0.03}, data=part, first_row=first,
        )  # fmt: skip
        assert isinstance(found, Scored)
        return found

    whole = run(data, 0)
    assert whole.standard_error is not None
    assert whole.network_evaluations is not None
    assert (whole.standard_error <= 0.03).all()
    assert len(set(whole.network_evaluations.tolist())) > 1
    for row in range(4):
        alone = run(data[row : row + 1], row)
        assert alone.log_prob[0] == whole.log_prob[row]
        assert alone.network_evaluations is not None
        assert alone.network_evaluations[0] == whole.network_evaluations[row]


def test_budget_bounds_network_evaluations() -> None:
    result = score(
        WRONG, "iwae", importance_samples=64, target_standard_error=1e-6, max_network_evaluations=101
    )
    assert result.network_evaluations is not None
    assert result.network_evaluations.tolist() == [101]
    with pytest.raises(InvalidArgument, match="one draw takes 2 network rows"):
        score(WRONG, "iwae", max_network_evaluations=1)
