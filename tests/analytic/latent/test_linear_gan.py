from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from export.package.schema import Gan, ModelSpec
from serving.errors import FailedPrecondition
from serving.families.calibration import Calibration
from serving.families.drive import Network
from serving.families.latent.gan import GanFamily, truncated_normal
from serving.families.latent.surrogate import MODEL_SIGMA
from serving.families.request import Operation, Value
from serving.families.result import (
    Anomalies,
    Completed,
    CompletionKind,
    Encoded,
    Interpolated,
    LikelihoodKind,
    Reconstructed,
    Sampled,
    SampleKind,
    Scored,
)
from serving.families.rows import Tensors
from tests.analytic.latent.closed_form import (
    SIGMA,
    B,
    W,
    X,
    Z,
    ask,
    component,
    log_normal,
    model_spec,
    repeated,
    vector_space,
)

GIVEN = np.array([True, False, True, False])


def _networks() -> dict[str, Network]:
    weights, offset = torch.from_numpy(W), torch.from_numpy(B)

    def generator(inputs: Tensors) -> Tensors:
        return {"x": (inputs["latent"].double() @ weights.T + offset).float()}

    def product(inputs: Tensors) -> Tensors:
        return {**generator(inputs), "latent_vjp": (inputs["x_cotangent"].double() @ weights).float()}

    def encoder(inputs: Tensors) -> Tensors:
        return {"latent": inputs["x"][:, :2]}

    def discriminator(inputs: Tensors) -> Tensors:
        return {"logit": inputs["x"].sum(dim=1)}

    return {
        "generator": generator,
        "generator_vjp": product,
        "encoder": encoder,
        "discriminator": discriminator,
    }


NETWORKS = _networks()


def spec(*extra: str) -> ModelSpec:
    x, z = {"x": (4,)}, {"latent": (2,)}
    parts = {
        "generator": component(z, x),
        "generator_vjp": component({**z, "x_cotangent": (4,)}, {**x, "latent_vjp": (2,)}),
        "encoder": component(x, z),
        "discriminator": component(x, {"logit": ()}),
    }
    kept = {name: part for name, part in parts.items() if name == "generator" or name in extra}
    return model_spec(vector_space(4), kept, Gan(latent_shape=(2,)))


def posterior(given: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of z given some entries under p_sigma; the mean is the ridge solution."""
    weights = W[given]
    covariance = np.linalg.inv(np.eye(2) + weights.T @ weights / sigma**2)
    return covariance @ weights.T @ (X - B)[given] / sigma**2, covariance


def test_without_a_declared_sigma_there_is_no_likelihood() -> None:
    with pytest.raises(FailedPrecondition, match="surrogate_sigma") as caught:
        ask(GanFamily(spec()), NETWORKS, Operation.LIKELIHOOD, data=repeated(X, 1))
    assert caught.value.reason == "OPERATION_UNDEFINED"


@pytest.mark.parametrize("extra", [(), ("generator_vjp",)])
@pytest.mark.parametrize("half", [False, True])
def test_annealing_finds_the_surrogate_density(extra: tuple[str, ...], half: bool) -> None:
    given = GIVEN if half else np.ones(4, bool)
    rows = 16
    parameters: Mapping[str, Value] = {"surrogate_sigma": SIGMA, "steps": 100, "importance_samples": 32}
    result = ask(
        GanFamily(spec(*extra)), NETWORKS, Operation.LIKELIHOOD, None, parameters,
        data=repeated(np.where(given, X, np.nan), rows),
        observed=np.repeat(given[None], rows, axis=0) if half else None,
    )  # fmt: skip
    assert isinstance(result, Scored)
    covariance = (W @ W.T + SIGMA**2 * np.eye(4))[np.ix_(given, given)]
    truth = log_normal(X[given], B[given], covariance)
    assert (result.kind, result.target) == (LikelihoodKind.SURROGATE, "p_sigma")
    ratio = np.exp(result.log_prob - truth)
    assert abs(ratio.mean() - 1.0) < Z * ratio.std() / np.sqrt(rows)
    assert np.abs(result.log_prob - truth).max() < 1.0
    assert result.standard_error is not None
    assert result.standard_error.max() < 0.5


@pytest.mark.parametrize("extra", [(), ("generator_vjp",), ("encoder",)])
def test_inversion_is_the_ridge_solution(extra: tuple[str, ...]) -> None:
    family = GanFamily(spec(*extra))
    encoded = ask(family, NETWORKS, Operation.ENCODE, None, {"round_trip": True}, data=repeated(X, 2))
    assert isinstance(encoded, Encoded)
    mean, _ = posterior(np.ones(4, bool), MODEL_SIGMA)
    np.testing.assert_allclose(encoded.latents[0], mean, atol=2e-4)
    through = ask(family, NETWORKS, Operation.RECONSTRUCT, data=repeated(X, 1))
    assert isinstance(through, Reconstructed)
    assert encoded.round_trip_error is not None
    assert through.error[0] == pytest.approx(encoded.round_trip_error[0])
    np.testing.assert_allclose(through.data[0], W @ mean + B, atol=5e-4)


@pytest.mark.parametrize("extra", [(), ("generator_vjp",), ("encoder",)])
def test_latent_map_completes_from_the_given_entries_alone(extra: tuple[str, ...]) -> None:
    result = ask(
        GanFamily(spec(*extra)), NETWORKS, Operation.INPAINT, None, None,
        data=repeated(np.where(GIVEN, X, np.nan), 1), observed=GIVEN[None], completions=2,
    )  # fmt: skip
    assert isinstance(result, Completed)
    assert result.kind is CompletionKind.POINT_ESTIMATE
    mean, _ = posterior(GIVEN, MODEL_SIGMA)
    np.testing.assert_allclose(
        result.data[0, :, ~GIVEN].astype(np.float64),
        np.repeat((W @ mean + B)[~GIVEN, None], 2, axis=1),
        atol=1e-3,
    )
    np.testing.assert_array_equal(result.data[0, 0, GIVEN], X[GIVEN].astype(np.float32))


@pytest.mark.parametrize("extra", [(), ("generator_vjp",)])
def test_annealed_completions_follow_the_surrogates_conditional_law(extra: tuple[str, ...]) -> None:
    rows = 300
    result = ask(
        GanFamily(spec(*extra)), NETWORKS, Operation.INPAINT, "annealed_importance",
        {"particles": 16, "steps": 40}, data=repeated(X, rows), observed=np.repeat(GIVEN[None], rows, axis=0),
    )  # fmt: skip
    assert isinstance(result, Completed)
    assert result.kind is CompletionKind.APPROXIMATE
    mean, covariance = posterior(GIVEN, MODEL_SIGMA)
    truth, spread = (W @ mean + B)[~GIVEN], np.sqrt(np.diag(W @ covariance @ W.T)[~GIVEN])
    missing = result.data[:, 0][:, ~GIVEN].astype(np.float64)
    assert (np.abs(missing.mean(axis=0) - truth) / spread < Z / np.sqrt(rows) + 0.02).all()
    assert np.abs(missing.var(axis=0) / spread**2 - 1.0).max() < Z * np.sqrt(2 / rows) + 0.05


def test_rows_and_completions_do_not_depend_on_their_number() -> None:
    data = np.stack([X, X + 0.3, B, B - 1.0]).astype(np.float32)
    family = GanFamily(spec())
    observed = np.repeat(GIVEN[None], 4, axis=0)
    cases: list[tuple[str, Mapping[str, Value]]] = [
        ("latent_map", {}),
        ("annealed_importance", {"particles": 8, "steps": 10}),
    ]
    for method, parameters in cases:
        whole = ask(
            family,
            NETWORKS,
            Operation.INPAINT,
            method,
            parameters,
            data=data,
            observed=observed,
            completions=3,
        )
        part = ask(
            family, NETWORKS, Operation.INPAINT, method, parameters, data=data[1:2], observed=observed[:1],
            completions=2, first_row=1,
        )  # fmt: skip
        assert isinstance(whole, Completed)
        assert isinstance(part, Completed)
        np.testing.assert_array_equal(whole.data[1:2, :2], part.data)


def test_samples_follow_the_generators_law_and_truncation_changes_it() -> None:
    family, rows = GanFamily(spec()), 20_000
    plain = ask(family, NETWORKS, Operation.SAMPLE, rows=rows)
    short = ask(family, NETWORKS, Operation.SAMPLE, None, {"truncation": 0.5}, rows=rows)
    assert isinstance(plain, Sampled)
    assert isinstance(short, Sampled)
    assert (plain.kind, short.kind) == (SampleKind.EXACT, SampleKind.MODIFIED)
    variance = np.diag(W @ W.T)
    for result, factor in ((plain, 1.0), (short, 0.080626)):  # variance of N(0, 1) within half a unit
        data = np.asarray(result.data, np.float64)
        assert np.abs(data.var(axis=0) / (factor * variance) - 1.0).max() < Z * np.sqrt(2 / rows)
    uniforms = torch.rand(1000, generator=torch.Generator().manual_seed(1))
    assert float(truncated_normal(uniforms, 0.5).abs().max()) <= 0.5


def test_anogan_adds_the_discriminators_view() -> None:
    mean, _ = posterior(np.ones(4, bool), MODEL_SIGMA)
    difference = X - (W @ mean + B)
    calibration = Calibration.fit("p", {"anogan": [0.0, 100.0]}, {})
    for extra, truth in (
        ((), np.abs(difference).sum()),
        (("discriminator",), 0.9 * np.abs(difference).sum() + 0.1 * abs(difference.sum())),
    ):
        result = ask(
            GanFamily(spec(*extra), calibration), NETWORKS, Operation.SCORE_ANOMALY, None,
            {"score_map": True}, data=repeated(X, 1),
        )  # fmt: skip
        assert isinstance(result, Anomalies)
        assert result.score[0] == pytest.approx(truth, abs=2e-3)
        assert result.score_map is not None
        np.testing.assert_allclose(result.score_map[0], np.abs(difference), atol=1e-3)
        assert result.p_value == pytest.approx(2 / 3)


def test_interpolation_keeps_the_norm_of_latents() -> None:
    family = GanFamily(spec())
    ends = [(W @ np.array(z) + B)[None].astype(np.float32) for z in ([1.0, 0.0], [0.0, 1.0])]
    walk = ask(family, NETWORKS, Operation.INTERPOLATE, None, {"points": 3}, data=ends[0], end=ends[1])
    assert isinstance(walk, Interpolated)
    assert walk.path == "slerp"
    middle = np.linalg.lstsq(W, walk.data[0, 1] - B, rcond=None)[0]
    assert np.linalg.norm(middle) == pytest.approx(1.0, abs=0.05)  # the prior pulls ends in a little
