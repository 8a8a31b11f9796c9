"""The probability-flow density against ln N, with exact traces and with probes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from serving.families.diffusion import flow_density
from serving.families.diffusion.divergence import VJP
from serving.families.diffusion.family import DiffusionFamily
from serving.families.diffusion.process import Process
from serving.families.drive import Network, run_alone
from serving.families.request import Operation
from serving.families.result import Scored
from tests.analytic.diffusion.gaussian import (
    COVARIANCE,
    MEAN,
    Floats,
    GaussianDenoiser,
    answer,
    diffusion,
    family_of,
    flow_law,
    levels_space,
    package,
    request,
    vectors,
)


def _log_normal(x: Floats, mean: Floats, cov: Floats) -> Floats:
    gap = x - mean
    quadratic = np.einsum("pi,ij,pj->p", gap, np.linalg.inv(cov), gap)
    return np.asarray(-0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * cov)[1]), np.float64)


def _score(kind: str, x: Floats, parameters: dict[str, object], mean: Floats, cov: Floats) -> Scored:
    section = diffusion(kind)
    network, family = GaussianDenoiser(section, mean, cov), family_of(section, vectors(len(mean)))
    rows = np.asarray(x, np.float32)
    asked = request(
        Operation.LIKELIHOOD,
        "probability_flow_ode",
        len(x),
        data=rows,
        parameters={"probes": 1, **parameters},
    )
    result = answer(family, network, asked)
    assert isinstance(result, Scored)
    return result


@pytest.mark.parametrize("kind", ["vp", "ve"])
def test_exact_trace_gives_the_log_density_of_the_flow_from_its_prior(kind: str) -> None:
    x = np.random.default_rng(3).multivariate_normal(MEAN, COVARIANCE, 50)
    result = _score(kind, x, {"steps": 64}, MEAN, COVARIANCE)
    section = diffusion(kind)
    low, high = Process(section).sampled_ratio_range
    prior = float(np.hypot(1.0, high)) if kind == "vp" else high
    truth = flow_law(GaussianDenoiser(section, MEAN, COVARIANCE), low, high, prior)
    assert result.solver_error is not None
    np.testing.assert_allclose(result.log_prob, _log_normal(x.astype(np.float32), *truth), atol=1e-3)
    assert result.solver_error.max() < 2e-3
    assert result.target == "probability_flow"
    np.testing.assert_array_equal(result.standard_error, 0.0)


def test_the_density_of_a_flow_has_no_error_but_its_solver_s() -> None:
    x = np.random.default_rng(3).multivariate_normal(MEAN, COVARIANCE, 50)
    result = _score("flow", x, {"steps": 48}, MEAN, COVARIANCE)
    np.testing.assert_allclose(
        result.log_prob, _log_normal(x.astype(np.float32), MEAN, COVARIANCE), atol=2e-4
    )


def test_solver_error_covers_the_error_of_a_coarse_grid() -> None:
    x = np.random.default_rng(4).multivariate_normal(MEAN, COVARIANCE, 50)
    result = _score("flow", x, {"steps": 8}, MEAN, COVARIANCE)
    assert result.solver_error is not None
    truth = _log_normal(x.astype(np.float32), MEAN, COVARIANCE)
    assert np.all(np.abs(result.log_prob - truth) <= result.solver_error + 1e-4)


def test_standard_errors_of_probes_cover(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_density, "EXACT_ELEMENTS", 0)
    cov = np.array([[0.3, 0.1, 0.05], [0.1, 0.25, 0.08], [0.05, 0.08, 0.2]])
    mean = np.array([0.1, -0.2, 0.3])
    x = np.random.default_rng(5).multivariate_normal(mean, cov, 200)
    result = _score("flow", x, {"steps": 16, "probes": 16}, mean, cov)
    assert result.standard_error is not None
    z = (result.log_prob - _log_normal(x.astype(np.float32), mean, cov)) / result.standard_error
    assert abs(z.mean()) * np.sqrt(200) < 4.9
    assert 0.5 < np.square(z).mean() < 2.0


def test_rademacher_probes_are_exact_for_a_diagonal_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_density, "EXACT_ELEMENTS", 0)
    cov = np.diag([0.3, 0.25, 0.1])
    x = np.random.default_rng(6).multivariate_normal(np.zeros(3), cov, 20)
    result = _score("flow", x, {"steps": 32, "probes": 1}, np.zeros(3), cov)
    np.testing.assert_allclose(
        result.log_prob, _log_normal(x.astype(np.float32), np.zeros(3), cov), atol=2e-3
    )


@pytest.mark.parametrize("kind", ["vp", "flow"])
def test_the_exported_product_and_finite_differences_agree(kind: str) -> None:
    section = diffusion(kind)
    network = GaussianDenoiser(section, MEAN, COVARIANCE)
    spec = package(section, vectors())
    shipped = spec.model_copy(update={"components": {**spec.components, VJP: spec.components["denoiser"]}})
    x = np.random.default_rng(7).multivariate_normal(MEAN, COVARIANCE, 10).astype(np.float32)
    asked = request(Operation.LIKELIHOOD, "probability_flow_ode", 10, data=x, parameters={"steps": 16})
    found = []
    for each in (spec, shipped):
        networks: dict[str, Network] = {"denoiser": network, VJP: network.with_product}
        found.append(run_alone(DiffusionFamily(each).program(asked), networks, {}))
    assert isinstance(found[0], Scored)
    assert isinstance(found[1], Scored)
    np.testing.assert_allclose(found[0].log_prob, found[1].log_prob, atol=1e-3)
    assert found[1].network_evaluations is not None
    assert found[1].network_evaluations[0] == 4 * (16 + 8) * 2


@pytest.mark.parametrize("dequantization", ["uniform", "importance"])
def test_levels_are_scored_as_the_mass_of_their_cells(dequantization: str) -> None:
    """One 5-level pixel under N(0, 0.09): the cell's mass by the error function."""
    section = diffusion("flow")
    space = levels_space(1, 5)
    network = GaussianDenoiser(section, np.zeros(1), 0.09 * np.eye(1))
    data = np.arange(5, dtype=np.uint8).reshape(5, 1)
    parameters = {"steps": 16, "dequantization": dequantization, "importance_samples": 256, "probes": 1}
    asked = request(Operation.LIKELIHOOD, "probability_flow_ode", 5, data=data, parameters=parameters)
    result = answer(family_of(section, space), network, asked)
    assert isinstance(result, Scored)
    assert result.standard_error is not None
    centre = data[:, 0].astype(np.float64) * 0.5 - 1.0
    mass = np.log(ndtr((centre + 0.25) / 0.3) - ndtr((centre - 0.25) / 0.3))
    if dequantization == "uniform":
        variance = 0.5**2 / 12.0
        mass = (
            _log_normal(centre[:, None], np.zeros(1), 0.09 * np.eye(1)) - variance / (2 * 0.09) + np.log(0.5)
        )
    bias = 0.02 if dequantization == "importance" else 0.0
    assert np.all(np.abs(result.log_prob - mass) < 4.9 * result.standard_error + 2e-3 + bias)
