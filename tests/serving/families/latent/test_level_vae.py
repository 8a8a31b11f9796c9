"""A VAE over levels whose law can be summed: one latent dimension, two pixels, exact by quadrature."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from export.package.schema import Affine, DataSpace, ModelSpec, Observation, Vae
from serving.families.drive import Network, run_alone
from serving.families.latent.vae import VaeFamily
from serving.families.request import Operation, Request, Value
from serving.families.result import BaseMeasure, Completed, Sampled, Scored
from serving.families.rows import Tensors
from tests.analytic.latent.closed_form import Z, ask, component, model_spec

LEVELS = 4
SLOPES = torch.tensor([1.2, -0.8], dtype=torch.float64)


def spec(gradient: bool = False) -> ModelSpec:
    space = DataSpace(
        kind="image", axes=("width",), shape=(2,), dtype="uint8", levels=LEVELS,
        transform=Affine(scale=(2.0 / 3.0,), shift=(-1.0,)),
    )  # fmt: skip
    x, z, law = {"x": (2,)}, {"latent": (1,)}, {"mean": (2,), "log_scale": (2,)}
    parts = {"encoder": component(x, {"mean": (1,), "log_variance": (1,)}), "decoder": component(z, law)}
    if gradient:
        cotangents = {"mean_cotangent": (2,), "log_scale_cotangent": (2,)}
        parts["decoder_vjp"] = component({**z, **cotangents}, {**law, "latent_vjp": (1,)})
    return model_spec(
        space, parts, Vae(latent_shape=(1,), observation=Observation(kind="discretized_logistic"))
    )


def _decoder(inputs: Tensors) -> Tensors:
    z = inputs["latent"].double()
    return {"mean": z * SLOPES, "log_scale": -1.5 + 0.3 * torch.tanh(z).expand(-1, 2)}


def _encoder(inputs: Tensors) -> Tensors:
    mean = 0.5 * (inputs["x"].double() * SLOPES).sum(dim=1, keepdim=True)
    return {"mean": mean, "log_variance": torch.full_like(mean, -1.0)}


def _product(inputs: Tensors) -> Tensors:
    z = inputs["latent"].double()
    slope = (inputs["mean_cotangent"].double() * SLOPES).sum(dim=1, keepdim=True)
    slope = slope + 0.3 * (1 - torch.tanh(z).square()) * inputs["log_scale_cotangent"].double().sum(
        1, keepdim=True
    )
    return {**_decoder(inputs), "latent_vjp": slope}


NETWORKS: dict[str, Network] = {"encoder": _encoder, "decoder": _decoder, "decoder_vjp": _product}
FAMILY = VaeFamily(spec())


def _joint() -> np.ndarray:
    """P(level, level) by Gauss-Hermite quadrature over z, [levels, levels]."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    found = _decoder({"latent": torch.from_numpy(nodes)[:, None]})
    grid = torch.stack(
        [
            FAMILY.observation.log_prob(found, FAMILY.observation.from_levels(torch.full((200, 2), v)))
            for v in range(LEVELS)
        ]
    ).exp()
    first, second = grid[:, :, 0].numpy(), grid[:, :, 1].numpy()
    return np.asarray(np.einsum("n,an,bn->ab", weights / weights.sum(), first, second))


JOINT = _joint()
EVERY = np.array(list(itertools.product(range(LEVELS), repeat=2)), np.uint8)


@pytest.mark.parametrize(
    ("method", "samples", "gradient"),
    [("iwae", 20_000, False), ("ais", 200, False), ("ais_prior", 200, False), ("ais", 100, True)],
)
def test_probabilities_of_all_rows_are_right_and_sum_to_one(
    method: str, samples: int, gradient: bool
) -> None:
    parameters: dict[str, Value] = {"importance_samples": samples}
    parameters |= {"steps": 30} if method != "iwae" else {}
    result = ask(VaeFamily(spec(gradient)), NETWORKS, Operation.LIKELIHOOD, method, parameters, data=EVERY)
    assert isinstance(result, Scored)
    assert result.base_measure is BaseMeasure.COUNTING
    truth = JOINT[EVERY[:, 0], EVERY[:, 1]]
    probability = np.exp(result.log_prob)
    assert result.standard_error is not None
    error = probability * result.standard_error
    assert (np.abs(probability - truth) < Z * error + 1e-5).all()
    assert abs(probability.sum() - 1.0) < Z * np.sqrt(np.square(error).sum()) + 1e-5


def test_one_given_pixel_has_its_marginal() -> None:
    observed = np.repeat([[True, False]], LEVELS, axis=0)
    data = np.stack([np.arange(LEVELS), np.zeros(LEVELS)], axis=1).astype(np.uint8)
    result = ask(
        FAMILY,
        NETWORKS,
        Operation.LIKELIHOOD,
        "iwae",
        {"importance_samples": 20_000},
        data=data,
        observed=observed,
    )
    assert isinstance(result, Scored)
    assert result.standard_error is not None
    assert (np.abs(result.log_prob - np.log(JOINT.sum(axis=1))) < Z * result.standard_error + 1e-5).all()
    assert result.scored_dims.tolist() == [1] * LEVELS


def test_samples_follow_the_law() -> None:
    rows = 20_000
    result = ask(FAMILY, NETWORKS, Operation.SAMPLE, rows=rows)
    assert isinstance(result, Sampled)
    assert result.data.dtype == np.uint8
    counts = np.bincount(result.data.astype(int) @ [LEVELS, 1], minlength=LEVELS**2).reshape(LEVELS, LEVELS)
    assert (np.abs(counts / rows - JOINT) < Z * np.sqrt(JOINT / rows) + 5 / rows).all()


@pytest.mark.parametrize("method", ["metropolis_within_gibbs", "importance"])
def test_completions_follow_the_conditional_law(method: str) -> None:
    rows = 4000
    parameters: dict[str, Value] = {"sweeps": 40} if method != "importance" else {"particles": 100}
    data = np.repeat(np.array([[3, 0]], np.uint8), rows, axis=0)
    observed = np.repeat([[True, False]], rows, axis=0)
    result = ask(FAMILY, NETWORKS, Operation.INPAINT, method, parameters, data=data, observed=observed)
    assert isinstance(result, Completed)
    assert result.data.dtype == np.uint8
    assert (result.data[:, 0, 0] == 3).all()
    truth = JOINT[3] / JOINT[3].sum()
    share = np.bincount(result.data[:, 0, 1].astype(int), minlength=LEVELS) / rows
    assert (np.abs(share - truth) < Z * np.sqrt(truth * (1 - truth) / rows) + 0.01).all()


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("importance", {"particles": 20_000}), ("metropolis_within_gibbs", {"sweeps": 400})],
)
def test_entropy_is_that_of_the_conditional_law(method: str, parameters: dict[str, Value]) -> None:
    data, observed = np.array([[3, 0]], np.uint8), np.array([[True, False]])
    result = ask(
        FAMILY, NETWORKS, Operation.INPAINT, method, {**parameters, "entropy": True},
        data=data, observed=observed, completions=1 if method == "importance" else 20,
    )  # fmt: skip
    assert isinstance(result, Completed)
    assert result.mean is None
    assert result.entropy is not None
    truth = JOINT[3] / JOINT[3].sum()
    assert result.entropy[0, 0] == 0.0
    assert result.entropy[0, 1] == pytest.approx(-(truth * np.log(truth)).sum(), abs=0.02)


def test_announced_network_rows_are_exact() -> None:
    """``ask`` refuses a program that runs more than announced; this holds for fewer as well."""
    counted = dict.fromkeys(NETWORKS, 0)

    def counting(name: str) -> Network:
        def run(inputs: Tensors) -> Tensors:
            counted[name] += len(next(iter(inputs.values())))
            return NETWORKS[name](inputs)

        return run

    for method, parameters in (
        ("iwae", {"importance_samples": 7}),
        ("ais", {"importance_samples": 7, "steps": 5}),
    ):
        request = Request(Operation.LIKELIHOOD, method, parameters, 0, 0, 3, data=EVERY[:3])
        counted.update(dict.fromkeys(NETWORKS, 0))
        run_alone(FAMILY.program(request), {name: counting(name) for name in NETWORKS}, {})
        announced = FAMILY.network_rows(request)
        assert {name: count for name, count in counted.items() if count} == announced
