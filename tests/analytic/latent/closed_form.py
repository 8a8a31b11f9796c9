"""Linear-Gaussian latent models whose every answer is known, as networks of torch functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from export.package.schema import (
    Affine,
    Autoencoder,
    Component,
    DataSpace,
    Gan,
    ModelSpec,
    Observation,
    Parity,
    TensorSpec,
    Vae,
)
from serving.families.capability import Capability
from serving.families.drive import Network, run_alone
from serving.families.request import Operation, Request, Value
from serving.families.result import Result
from serving.families.rows import Program, Tensors

Floats = NDArray[np.float64]

# Probabilistic PCA with known answers: x = W z + b + sigma e.
W = np.array([[1.0, 0.3], [0.8, -0.5], [0.2, 0.9], [-0.6, 0.4]])
B = np.array([0.5, -0.2, 0.1, 0.0])
SIGMA = 0.3
X = np.array([0.7, 0.1, -0.4, 0.2])
LOG_P, LOG_P_HALF = -3.229697, -1.729105
GIVEN = np.array([True, True, False, False])
CONDITIONAL_MEAN = np.array([0.012127, -0.208203])
CONDITIONAL_COVARIANCE = np.array([[0.268369, 0.064407], [0.064407, 0.137042]])
Z = 4.9  # standard errors at a false-alarm rate of 1e-6


class AnyFamily(Protocol):
    def capabilities(self) -> tuple[Capability, ...]: ...
    def program(self, request: Request) -> Program: ...
    def network_rows(self, request: Request) -> dict[str, int]: ...


def vector_space(dims: int, transform: Affine | None = None) -> DataSpace:
    return DataSpace(
        kind="vector", axes=("x",), shape=(dims,), dtype="float32", transform=transform or Affine()
    )


def component(inputs: Mapping[str, tuple[int, ...]], outputs: Mapping[str, tuple[int, ...]]) -> Component:
    def specs(tensors: Mapping[str, tuple[int, ...]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name=n, dtype="float32", shape=("rows", *s)) for n, s in tensors.items())

    return Component(format="onnx", file="graph.onnx", inputs=specs(inputs), outputs=specs(outputs))


def model_spec(
    space: DataSpace, components: Mapping[str, Component], section: Autoencoder | Vae | Gan
) -> ModelSpec:
    family = type(section).__name__.lower()
    return ModelSpec.model_validate(
        {
            "format_version": 1,
            "name": "closed-form",
            "family": family,
            "description": "",
            "license": "",
            "data": space,
            "components": dict(components),
            "parity": Parity(max_abs_error=0.0, max_rel_error=0.0, inputs=""),
            "files": {"graph.onnx": "0" * 64},
            family: section,
        }
    )


@dataclass(frozen=True)
class LinearVae:
    """Decoder W z + B; the encoder's mean is off by ``shift``, its variance by ``inflation``."""

    inflation: float = 1.0
    shift: float = 0.0
    gradient: bool = False
    transform: Affine | None = None

    @property
    def weights(self) -> Floats:
        """W turned so that the posterior is diagonal; p(x) is the same."""
        return np.asarray(W @ np.linalg.eigh(W.T @ W)[1])

    @property
    def spec(self) -> ModelSpec:
        x, z = {"x": (4,)}, {"latent": (2,)}
        parts = {
            "encoder": component(x, {"mean": (2,), "log_variance": (2,)}),
            "decoder": component(z, {"mean": (4,)}),
        }
        if self.gradient:
            parts["decoder_vjp"] = component(
                {**z, "mean_cotangent": (4,)}, {"mean": (4,), "latent_vjp": (2,)}
            )
        section = Vae(latent_shape=(2,), observation=Observation(kind="gaussian", scale=SIGMA))
        return model_spec(vector_space(4, self.transform), parts, section)

    @property
    def posterior_variance(self) -> Floats:
        return np.asarray(1.0 / (1.0 + np.square(self.weights).sum(axis=0) / SIGMA**2))

    def posterior_mean(self, x: Floats) -> Floats:
        return np.asarray(self.posterior_variance * ((x - B) @ self.weights) / SIGMA**2)

    def gap(self) -> float:
        """KL(q || p(z | x)), which the ELBO loses."""
        terms = self.inflation + self.shift**2 / self.posterior_variance - 1.0 - np.log(self.inflation)
        return float(0.5 * terms.sum())

    @property
    def networks(self) -> dict[str, Network]:
        weights = torch.from_numpy(self.weights)
        variance = torch.from_numpy(self.posterior_variance)
        offset = torch.from_numpy(B)

        def encoder(inputs: Tensors) -> Tensors:
            mean = variance * ((inputs["x"].double() - offset) @ weights) / SIGMA**2 + self.shift
            return {"mean": mean, "log_variance": (variance * self.inflation).log().expand_as(mean)}

        def decoder(inputs: Tensors) -> Tensors:
            return {"mean": inputs["latent"].double() @ weights.T + offset}

        def product(inputs: Tensors) -> Tensors:
            return {**decoder(inputs), "latent_vjp": inputs["mean_cotangent"].double() @ weights}

        return {"encoder": encoder, "decoder": decoder, "decoder_vjp": product}


def log_normal(x: Floats, mean: Floats, covariance: Floats) -> float:
    difference = x - mean
    quadratic = difference @ np.linalg.solve(covariance, difference)
    return float(-0.5 * (quadratic + np.linalg.slogdet(2.0 * np.pi * covariance)[1]))


def resolved(
    family: AnyFamily, operation: Operation, method: str | None, given: dict[str, Value]
) -> tuple[str, dict[str, Value]]:
    capability = next(c for c in family.capabilities() if c.operation is operation)
    chosen = next(m for m in capability.methods if m.name == method) if method else capability.default
    defaults = {p.name: p.default for p in chosen.parameters if p.default is not None}
    assert not given.keys() - {p.name for p in chosen.parameters}
    return chosen.name, {**defaults, **given}


def ask(
    family: AnyFamily,
    networks: Mapping[str, Network],
    operation: Operation,
    method: str | None = None,
    parameters: Mapping[str, Value] | None = None,
    *,
    seed: int = 1,
    first_row: int = 0,
    rows: int = 1,
    completions: int = 1,
    data: NDArray[np.generic] | None = None,
    end: NDArray[np.generic] | None = None,
    latents: NDArray[np.float32] | None = None,
    observed: NDArray[np.bool_] | None = None,
    statistics: bool = False,
) -> Result:
    """Drive one request alone, and hold it to the network rows that it announced."""
    name, values = resolved(family, operation, method, dict(parameters or {}))
    rows = len(data) if data is not None else len(latents) if latents is not None else rows
    request = Request(
        operation, name, values, seed, first_row, rows, completions,
        data=data, end=end, latents=latents, observed=observed,
    )  # fmt: skip
    counted = dict.fromkeys(networks, 0)

    def counting(key: str, network: Network) -> Network:
        def run(inputs: Tensors) -> Tensors:
            counted[key] += len(next(iter(inputs.values())))
            return network({k: v.clone() for k, v in inputs.items()})

        return run

    announced = {} if statistics else family.network_rows(request)
    program = family.statistics(request) if statistics else family.program(request)  # type: ignore[attr-defined]
    result = run_alone(program, {key: counting(key, network) for key, network in networks.items()}, {})
    if not statistics:
        over = {key: n for key, n in counted.items() if n > announced.get(key, 0)}
        assert not over, f"ran {counted}, announced {announced}"
    return result


def repeated(row: Floats, rows: int) -> NDArray[np.float32]:
    return np.repeat(row[None].astype(np.float32), rows, axis=0)
