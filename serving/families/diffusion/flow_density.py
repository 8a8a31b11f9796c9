"""ln p(x) of the probability-flow ODE: ln prior(y_1) + the integral of the divergence (Chen et al. 2018).

A fixed grid of classical Runge-Kutta steps, the same for every row; a second pass with half the steps
(and finite differences twice as wide) gives ``solver_error``. Levels are dequantised: uniform points of
each level's cell bound ln P from below in the mean; their log-mean-exp converges to it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch

from kernels.philox import STREAM_LATENT, STREAM_PROBE, STREAMS_PER_PARTICLE, philox_uniform, philox_words
from serving.families import units
from serving.families.diffusion.denoiser import Denoiser, rows_of
from serving.families.diffusion.divergence import VJP, Divergence, Probes
from serving.families.diffusion.ode import field_of
from serving.families.diffusion.process import Floats
from serving.families.request import Request
from serving.families.result import BaseMeasure, LikelihoodKind, Scored
from serving.families.rows import Program, Tensors, Yield

EXACT_ELEMENTS = 16  # up to here the trace is summed over the basis


@dataclass(frozen=True)
class Budget:
    """Points per row, probes per point and steps: what one answer costs."""

    points: int
    probes: int
    steps: int
    exact: bool
    dequantization: str

    @classmethod
    def of(cls, denoiser: Denoiser, request: Request) -> Budget:
        """From the resolved parameters; real data has one point and no dequantisation."""
        found = request.parameters
        kind = str(found.get("dequantization", "none"))
        exact = denoiser.elements <= EXACT_ELEMENTS
        points = int(found.get("importance_samples", 1)) if kind != "none" else 1  # type: ignore[arg-type]
        probes = denoiser.elements if exact else int(found["probes"])  # type: ignore[arg-type]
        return cls(points, probes, int(found["steps"]), exact, kind)  # type: ignore[arg-type]

    def network_rows(self, denoiser: Denoiser) -> int:
        """Per data row: four stages a step, and half as many steps once more."""
        per_node = self.probes if VJP in denoiser.spec.components else 1 + 2 * self.probes
        return 4 * (self.steps + max(1, self.steps // 2)) * self.points * per_node


def flow_density(denoiser: Denoiser, request: Request) -> Program:
    """Estimate with standard error (probes and dequantisation together) and solver error."""
    budget = Budget.of(denoiser, request)
    fine = yield from _log_density(denoiser, request, budget, budget.steps, 1.0)
    coarse = yield from _log_density(denoiser, request, budget, max(1, budget.steps // 2), 2.0)
    log_prob, error, ess = _pooled(fine, budget)
    return Scored(
        log_prob=log_prob,
        scored_dims=np.full(request.rows, denoiser.elements, np.int64),
        kind=LikelihoodKind.ESTIMATE,
        target="probability_flow",
        base_measure=BaseMeasure.COUNTING if budget.dequantization != "none" else BaseMeasure.LEBESGUE,
        standard_error=error,
        effective_sample_size=ess,
        solver_error=np.abs(log_prob - _pooled(coarse, budget)[0]),
        network_evaluations=np.full(request.rows, budget.network_rows(denoiser), np.int64),
        dequantization=budget.dequantization,
        parameters=dict(request.parameters),
    )


def _pooled(values: Floats, budget: Budget) -> tuple[Floats, Floats | None, Floats | None]:
    """[rows, points, probes] to (ln p, standard error, effective sample size)."""
    by_point = values.mean(axis=2)
    if budget.dequantization == "importance":
        found = units.log_mean_exp(by_point)
        return found.value, found.standard_error, found.ess
    samples = by_point if by_point.shape[1] > 1 else values[:, 0]
    count = samples.shape[1]
    if count == 1:
        return samples[:, 0], np.zeros(len(values)) if budget.exact else np.full(len(values), np.nan), None
    return samples.mean(axis=1), samples.std(axis=1, ddof=1) / np.sqrt(count), None


def _log_density(
    denoiser: Denoiser, request: Request, budget: Budget, steps: int, widen: float
) -> Generator[Yield, Tensors, Floats]:
    """ln p in data space [rows, points, probes]; exact traces are one value."""
    field = field_of(denoiser.process, steps)
    probes = _probes(denoiser, request, budget)
    conditions = denoiser.conditions(request, budget.points)
    divergence = Divergence(denoiser, field, probes, conditions, widen)
    start = _points(denoiser, request, budget).flatten(1) * float(np.exp(field.log_start))
    end, integral = yield from _integrate(divergence, start, steps)
    total = integral.sum(axis=1, keepdims=True) if budget.exact else integral
    squares = np.square(end.double().numpy()).sum(axis=1, keepdims=True)
    log_prior = -0.5 * squares / field.prior_sd**2 - denoiser.elements * np.log(
        field.prior_sd * np.sqrt(2.0 * np.pi)
    )
    constant = denoiser.elements * field.log_start + units.log_abs_det(denoiser.data)
    return np.asarray((log_prior + total + constant).reshape(request.rows, budget.points, -1), np.float64)


def _integrate(
    divergence: Divergence, y: torch.Tensor, steps: int
) -> Generator[Yield, Tensors, tuple[torch.Tensor, Floats]]:
    """Classical Runge-Kutta over r in [0, 1]: y(1), and the integral of the divergence by probe."""
    total = np.zeros((len(y), divergence.probes.count))
    h = 1.0 / steps
    for step in range(steps):
        k1, d1 = yield from divergence.at(2 * step, y)
        k2, d2 = yield from divergence.at(2 * step + 1, y + 0.5 * h * k1)
        k3, d3 = yield from divergence.at(2 * step + 1, y + 0.5 * h * k2)
        k4, d4 = yield from divergence.at(2 * step + 2, y + h * k3)
        y = y + (h / 6.0) * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        total += (h / 6.0) * (d1 + 2.0 * d2 + 2.0 * d3 + d4)
    return y, total


def _points(denoiser: Denoiser, request: Request, budget: Budget) -> torch.Tensor:
    """Data rows, each ``points`` times, dequantised: float32 [rows * points, *shape]."""
    assert request.data is not None
    x = denoiser.to_model(request.data).repeat_interleave(budget.points, dim=0)
    if budget.dequantization == "none":
        return x
    uniform = philox_uniform(*_keys(request, budget.points, 1, STREAM_LATENT), denoiser.elements)
    return units.dequantize(denoiser.data, x, uniform.reshape(x.shape))


def _probes(denoiser: Denoiser, request: Request, budget: Budget) -> Probes:
    """One Rademacher vector per probe for the whole path, or the basis."""
    n, states = denoiser.elements, request.rows * budget.points
    if budget.exact:
        return Probes(torch.eye(n).expand(states, n, n), exact=True)
    words = philox_words(*_keys(request, budget.points, budget.probes, STREAM_PROBE), n)
    return Probes((2.0 * (words & 1) - 1.0).float().reshape(states, budget.probes, n), exact=False)


def _keys(
    request: Request, points: int, probes: int, stream: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(seed, row, line, stream word) [rows * points * probes]: line is the probe, particle the point."""
    times = points * probes
    rows = np.repeat(rows_of(request), times)
    seed = np.full(len(rows), np.uint64(request.seed).astype(np.int64))
    point = np.tile(np.repeat(np.arange(points), probes), request.rows)
    line = np.tile(np.arange(probes), request.rows * points)
    words = stream + STREAMS_PER_PARTICLE * point
    return torch.from_numpy(seed), torch.from_numpy(rows), torch.from_numpy(line), torch.from_numpy(words)
