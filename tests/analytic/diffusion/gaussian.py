"""Closed-form truth: Gaussian data, its exact denoiser under any process, and the law of an affine plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from export.package.schema import (
    Affine,
    Component,
    Condition,
    DataSpace,
    Diffusion,
    FlowSchedule,
    ModelSpec,
    Parity,
    TensorSpec,
    VeSchedule,
    VpSchedule,
)
from serving.families.diffusion.family import DiffusionFamily
from serving.families.diffusion.plan import C1, KNOWN, RENOISE, A, B, D, Plan
from serving.families.diffusion.process import Levels
from serving.families.drive import run_alone
from serving.families.request import Operation, Request
from serving.families.result import Result
from serving.families.rows import Tensors

Floats = NDArray[np.float64]

MEAN = np.array([0.3, -0.5])
COVARIANCE = np.array([[0.25, 0.18], [0.18, 0.16]])
LINEAR = VpSchedule(betas=tuple(np.linspace(1e-4, 0.02, 1000)))
GEOMETRIC = VeSchedule(sigmas=tuple(np.geomspace(0.01, 20.0, 1000)))
FLOW = FlowSchedule()


def diffusion(kind: str, **changes: object) -> Diffusion:
    """A section whose network is told sigma / alpha or s, so that any level has its exact predictor."""
    base: dict[str, object] = {
        "vp": {"schedule": LINEAR, "prediction": "epsilon", "time_input": "log_sigma"},
        "ve": {"schedule": GEOMETRIC, "prediction": "score", "time_input": "log_sigma"},
        "flow": {"schedule": FLOW, "prediction": "flow", "time_input": "fraction"},
    }[kind]
    return Diffusion.model_validate({**base, **changes})


def package(section: Diffusion, data: DataSpace, conditions: tuple[Condition, ...] = ()) -> ModelSpec:
    """A package around a denoiser of ``data``."""
    inputs = [
        TensorSpec(name="x", dtype="float32", shape=("rows", *data.shape)),
        TensorSpec(name="t", dtype="float32", shape=("rows",)),
        *(TensorSpec(name=c.name, dtype="int64", shape=("rows",)) for c in conditions),
    ]
    outputs = (TensorSpec(name="prediction", dtype="float32", shape=("rows", *data.shape)),)
    return ModelSpec(
        format_version=1,
        name="gaussian",
        family="diffusion",
        description="closed form",
        license="Apache-2.0",
        data=data,
        conditions=conditions,
        components={
            "denoiser": Component(format="onnx", file="d.onnx", inputs=tuple(inputs), outputs=outputs)
        },
        diffusion=section,
        parity=Parity(max_abs_error=0.0, max_rel_error=0.0, inputs="none"),
        files={"d.onnx": "0" * 64},
    )


def vectors(elements: int = 2) -> DataSpace:
    """Real vectors."""
    return DataSpace(kind="vector", axes=("element",), shape=(elements,), dtype="float32")


def levels_space(elements: int, levels: int = 17) -> DataSpace:
    """Levels 0 .. levels - 1 on [-1, 1]."""
    return DataSpace(
        kind="image",
        axes=("element",),
        shape=(elements,),
        dtype="uint8",
        levels=levels,
        transform=Affine(scale=(2.0 / (levels - 1),), shift=(-1.0,)),
    )


@dataclass
class GaussianDenoiser:
    """The exact predictor of N(mean, covariance), computed in float64."""

    section: Diffusion
    mean: Floats
    covariance: Floats

    @property
    def specs(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Inputs."""
        return {"x": (torch.float32, self.mean.shape), "t": (torch.float32, ())}

    def level(self, t: Floats) -> tuple[Floats, Floats]:
        """(alpha, sigma) of model times."""
        if self.section.schedule.kind == "flow":
            return 1.0 - t, t
        ratio = np.exp(t)
        alpha = 1.0 / np.sqrt(1.0 + ratio**2) if self.section.schedule.kind == "vp" else np.ones_like(ratio)
        return alpha, ratio * alpha

    def gain(self, alpha: Floats, sigma: Floats) -> Floats:
        """K with E[x0 | x] = mean + K (x - alpha mean), [n, D, D]."""
        eye = np.eye(len(self.mean))
        a, s = alpha[:, None, None], sigma[:, None, None]
        return a * np.linalg.solve(
            a**2 * self.covariance + s**2 * eye, np.broadcast_to(self.covariance, (len(a), *eye.shape))
        )

    def __call__(self, inputs: Tensors) -> Tensors:
        x = inputs["x"].double().numpy()
        times, which = np.unique(inputs["t"].double().numpy(), return_inverse=True)
        alpha, sigma = self.level(times)
        gain = self.gain(alpha, sigma)[which]
        alpha, sigma = alpha[which], sigma[which]
        x0 = self.mean + np.einsum("nij,nj->ni", gain, x - alpha[:, None] * self.mean)
        return {"prediction": torch.from_numpy(self.output(x, x0, alpha[:, None], sigma[:, None])).float()}

    def with_product(self, inputs: Tensors) -> Tensors:
        """The output and the vector-Jacobian product of ``cotangent``, v^T J."""
        zero = {"x": torch.zeros_like(inputs["x"]), "t": inputs["t"]}
        columns = []
        for j in range(len(self.mean)):  # the map is affine: its columns are differences
            unit = {**zero, "x": zero["x"].clone()}
            unit["x"][:, j] = 1.0
            columns.append(self(unit)["prediction"] - self(zero)["prediction"])
        product = torch.einsum("nij,ni->nj", torch.stack(columns, dim=2), inputs["cotangent"])
        return {**self(inputs), "x_vjp": product}

    def output(self, x: Floats, x0: Floats, alpha: Floats, sigma: Floats) -> Floats:
        """The network's convention for x0."""
        noise = (x - alpha * x0) / np.maximum(sigma, 1e-12)
        return {
            "epsilon": noise,
            "sample": x0,
            "v": alpha * noise - sigma * x0,
            "score": -noise / np.maximum(sigma, 1e-12),
            "flow": noise - x0,
            "flow_reversed": x0 - noise,
        }[self.section.prediction]


def family_of(section: Diffusion, data: DataSpace) -> DiffusionFamily:
    """The family of a package without conditions."""
    return DiffusionFamily(package(section, data))


def answer(family: DiffusionFamily, network: object, request: Request) -> Result:
    """Run a request alone."""
    capacity = request.rows * request.completions * 2
    tables = family.tables({}, capacity, torch.device("cpu"))
    return run_alone(family.program(request), {"denoiser": network}, tables)  # type: ignore[dict-item]


def request(operation: Operation, method: str, rows: int, **fields: object) -> Request:
    """A request with seed 11."""
    parameters = fields.pop("parameters", {})
    return Request(operation, method, parameters, 11, 0, rows, **fields)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Clamped:
    """Observed elements and their values, for the law of completions inside the loop."""

    observed: NDArray[np.bool_]
    values: Floats


def law(
    plan: Plan, network: GaussianDenoiser, levels: Levels, clamped: Clamped | None = None
) -> tuple[Floats, Floats]:
    """Mean and covariance of the last state: the affine recursion over (x, h1, h2, h3), in float64."""
    dims = len(network.mean)
    gains = network.gain(levels.alpha, levels.sigma)
    mean, cov = np.zeros(4 * dims), np.zeros((4 * dims, 4 * dims))
    cov[:dims, :dims] = plan.initial_sd**2 * np.eye(dims)
    eye = np.eye(dims)
    for line, gain, alpha in zip(plan.exact, gains, levels.alpha, strict=True):
        move = np.zeros((4 * dims, 4 * dims))
        offset = (eye - alpha * gain) @ network.mean  # x0 = gain x + offset
        move[:dims, :dims] = line[A] * eye + line[B] * gain
        for j in range(3):
            move[:dims, (j + 1) * dims : (j + 2) * dims] = line[C1 + j] * eye
        move[dims : 2 * dims, :dims] = gain
        move[2 * dims :, dims : 3 * dims] = np.eye(2 * dims)
        constant = np.concatenate([line[B] * offset, offset, np.zeros(2 * dims)])
        mean, cov = move @ mean + constant, move @ cov @ move.T
        cov[:dims, :dims] += line[D] ** 2 * eye
        if clamped is not None:
            _clamp(mean, cov, line, clamped)
    return mean[:dims], cov[:dims, :dims]


def _clamp(mean: Floats, cov: Floats, line: Floats, clamped: Clamped) -> None:
    index = np.flatnonzero(clamped.observed)
    mean[index] = line[KNOWN] * clamped.values[index]
    cov[index, :] = 0.0
    cov[:, index] = 0.0
    cov[index, index] = line[RENOISE] ** 2


def kl(mean: Floats, cov: Floats, mu: Floats, sigma: Floats) -> float:
    """KL(N(mean, cov) || N(mu, sigma))."""
    inverse = np.linalg.inv(sigma)
    gap = mean - mu
    logs = np.linalg.slogdet(sigma)[1] - np.linalg.slogdet(cov)[1]
    return float(0.5 * (np.trace(inverse @ cov) + gap @ inverse @ gap - len(mu) + logs))


def largest_z(draws: Floats, mean: Floats, cov: Floats) -> float:
    """Largest z-score of the draws' means and covariances [n, D] against N(mean, cov)."""
    n = len(draws)
    of_mean = np.abs(draws.mean(axis=0) - mean) / np.sqrt(np.diag(cov) / n)
    centred = draws - mean
    spread = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / n)
    of_cov = np.abs(centred.T @ centred / n - cov) / spread
    return float(max(of_mean.max(), of_cov.max()))


def conditional(mean: Floats, cov: Floats, value: float) -> tuple[float, float]:
    """Mean and variance of element 1 given element 0."""
    slope = cov[1, 0] / cov[0, 0]
    return float(mean[1] + slope * (value - mean[0])), float(cov[1, 1] - slope * cov[0, 1])


def flow_law(network: GaussianDenoiser, low: float, high: float, prior_sd: float) -> tuple[Floats, Floats]:
    """Law of the data under the probability flow from N(0, prior_sd^2) at relative noise ``high``.

    In x / alpha the flow keeps the eigenvectors of the covariance and moves each coordinate by the
    ratio of its standard deviations at ``low`` and ``high``; ``prior_sd`` is in that coordinate too.
    """
    values, vectors_ = np.linalg.eigh(network.covariance)
    gain = (vectors_ * np.sqrt((values + low**2) / (values + high**2))) @ vectors_.T
    return network.mean - gain @ network.mean, prior_sd**2 * gain @ gain.T
