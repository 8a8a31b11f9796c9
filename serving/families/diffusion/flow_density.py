"""ln p(x) of the probability-flow ODE: ln prior(y_1) + the integral of the divergence (Chen et al. 2018).

A fixed grid of classical Runge-Kutta steps, the same for every row; a second pass with half the steps
(and finite differences twice as wide) gives ``solver_error``. Levels are dequantised: uniform points of
each level's cell bound ln P from below in the mean; their log-mean-exp converges to it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.philox import STREAM_LATENT, STREAM_PROBE, STREAMS_PER_PARTICLE, philox_uniform, philox_words
from serving.errors import invalid
from serving.families import units
from serving.families.diffusion.denoiser import Denoiser, rows_of
from serving.families.diffusion.divergence import VJP, Divergence, Probes
from serving.families.diffusion.ode import field_of
from serving.families.diffusion.process import Floats
from serving.families.request import Request
from serving.families.result import BaseMeasure, LikelihoodKind, Scored
from serving.families.rows import Program, Progress, Tensors, Yield

Ints = NDArray[np.int64]
MOST_ROUNDS = 64
EXACT_ELEMENTS = 16  # up to here the trace is summed over the basis


@dataclass(frozen=True)
class Budget:
    """What one answer may cost. A draw is a dequantised point with its probes, or without such a probe.

    ``each``: draws of a row at a time; it stops at ``target`` standard error; ``limit`` bounds its network
    evaluations. ``probes``: per draw.
    """

    each: int
    probes: int
    steps: int
    exact: bool
    dequantization: str
    has_vjp: bool
    target: float | None = None
    limit: int | None = None

    @classmethod
    def of(cls, denoiser: Denoiser, request: Request) -> Budget:
        """From the resolved parameters; InvalidArgument where the limit allows no draw.

        A target needs a standard error, hence at least two draws at a time.
        """
        found = request.parameters
        kind = str(found.get("dequantization", "none"))
        exact = denoiser.elements <= EXACT_ELEMENTS
        probes = denoiser.elements if exact else int(found["probes"])  # type: ignore[arg-type]
        each = int(found.get("importance_samples", 1))  # type: ignore[arg-type]
        if kind == "none":
            each, probes = (1, probes) if exact else (probes, 1)
        target, limit = found.get("target_standard_error"), found.get("max_network_evaluations")
        if target is not None and not (exact and kind == "none"):
            each = max(2, each)
        budget = cls(
            each, probes, int(found["steps"]), exact, kind, VJP in denoiser.spec.components,  # type: ignore[arg-type]
            None if target is None else float(target), None if limit is None else int(limit),  # type: ignore[arg-type]
        )  # fmt: skip
        if not budget.counts():
            least = f"one draw takes {budget.evaluations(1)} evaluations"
            raise invalid("parameters.max_network_evaluations", least)
        return budget

    @property
    def pointwise(self) -> bool:
        """Whether draws are dequantised points; otherwise they are the probes of the one point."""
        return self.dequantization != "none"

    def evaluations(self, draws: int) -> int:
        """Network rows of one data row in a round: four stages a step, and half as many steps once more."""
        points, probes = (draws, self.probes) if self.pointwise else (1, draws * self.probes)
        per_node = probes if self.has_vjp else 1 + 2 * probes
        return 4 * (self.steps + max(1, self.steps // 2)) * points * per_node

    def counts(self) -> list[int]:
        """Draws by round, at most; none where the limit allows no draw."""
        if self.target is None or (self.exact and not self.pointwise):
            return self._fitting(self.each, self.limit)
        if self.limit is None:
            return [self.each] * MOST_ROUNDS
        rounds = min(MOST_ROUNDS, self.limit // self.evaluations(self.each))
        left = self.limit - rounds * self.evaluations(self.each)
        return [self.each] * rounds + (self._fitting(self.each, left) if rounds < MOST_ROUNDS else [])

    def _fitting(self, most: int, limit: int | None) -> list[int]:
        """One round of the most draws that the limit allows, if any."""
        fits = (n for n in range(most, 0, -1) if limit is None or self.evaluations(n) <= limit)
        return [n for n in (next(fits, 0),) if n]


@dataclass(frozen=True)
class Part:
    """Rows of a request in one round: their noise rows [rows], and ``draws`` after ``first`` earlier ones."""

    request: Request
    numbers: Ints
    first: int
    draws: int

    @classmethod
    def of(cls, request: Request, rows: Ints, first: int, draws: int) -> Part:
        """The given rows alone."""
        assert request.data is not None
        conditions = {name: value[rows] for name, value in request.conditions.items()}
        alone = replace(request, rows=len(rows), data=request.data[rows], conditions=conditions)
        return cls(alone, rows_of(request)[rows], first, draws)


@dataclass(frozen=True)
class Draws:
    """ln p by draw [rows, most draws, probes] on either grid; draws and evaluations so far [rows]."""

    fine: Floats
    coarse: Floats
    taken: Ints
    spent: Ints


def flow_density(denoiser: Denoiser, request: Request) -> Program:
    """Estimate with standard error (probes and dequantisation together) and solver error.

    Every row stops on its own standard error, so that none depends on its neighbours.
    """
    budget = Budget.of(denoiser, request)
    counts, rows = budget.counts(), request.rows
    shape = (rows, sum(counts), 1 if budget.exact else budget.probes)
    drawn = Draws(np.zeros(shape), np.zeros(shape), np.zeros(rows, np.int64), np.zeros(rows, np.int64))
    active = np.arange(rows)
    for count in counts:
        part = Part.of(request, active, int(drawn.taken[active[0]]), count)
        yield from _draw(denoiser, budget, part, drawn, active)
        answer = _scored(denoiser, request, budget, drawn)
        if budget.target is not None:
            yield Progress(answer)
            assert answer.standard_error is not None
            error = answer.standard_error[active]
            active = active[~((error > 0.0) & (error <= budget.target))]  # two equal probes tell nothing
        if not len(active):
            break
    return answer


def _draw(
    denoiser: Denoiser, budget: Budget, part: Part, drawn: Draws, active: Ints
) -> Generator[Yield, Tensors, None]:
    """One round, added to ``drawn``."""
    fine = yield from _log_density(denoiser, part, budget, budget.steps, 1.0)
    coarse = yield from _log_density(denoiser, part, budget, max(1, budget.steps // 2), 2.0)
    drawn.fine[active, part.first : part.first + part.draws] = fine
    drawn.coarse[active, part.first : part.first + part.draws] = coarse
    drawn.taken[active] += part.draws
    drawn.spent[active] += budget.evaluations(part.draws)


def _scored(denoiser: Denoiser, request: Request, budget: Budget, drawn: Draws) -> Scored:
    log_prob, error, ess, coarse = np.zeros((4, request.rows))
    for count in np.unique(drawn.taken):
        rows = drawn.taken == count
        log_prob[rows], error[rows], ess[rows] = _pooled(drawn.fine[rows, :count], budget)
        coarse[rows] = _pooled(drawn.coarse[rows, :count], budget)[0]
    return Scored(
        log_prob=log_prob,
        scored_dims=np.full(request.rows, denoiser.elements, np.int64),
        kind=LikelihoodKind.ESTIMATE,
        target="probability_flow",
        base_measure=BaseMeasure.COUNTING if budget.pointwise else BaseMeasure.LEBESGUE,
        standard_error=error,
        effective_sample_size=ess if budget.dequantization == "importance" else None,
        solver_error=np.abs(log_prob - coarse),
        network_evaluations=drawn.spent.copy(),
        dequantization=budget.dequantization,
        parameters=dict(request.parameters),
    )


def _pooled(values: Floats, budget: Budget) -> tuple[Floats, Floats, Floats]:
    """[rows, draws, probes] to (ln p, standard error, effective sample size) [rows] each."""
    by_draw = values.mean(axis=2)
    if budget.dequantization == "importance":
        found = units.log_mean_exp(by_draw)
        return found.value, found.standard_error, found.ess
    samples = by_draw if by_draw.shape[1] > 1 else values[:, 0]
    count = samples.shape[1]
    if count == 1:
        error = 0.0 if budget.exact and not budget.pointwise else np.nan
        return samples[:, 0], np.full(len(values), error), np.zeros(len(values))
    error = samples.std(axis=1, ddof=1) / np.sqrt(count)
    return samples.mean(axis=1), error, np.zeros(len(values))


def _log_density(
    denoiser: Denoiser, part: Part, budget: Budget, steps: int, widen: float
) -> Generator[Yield, Tensors, Floats]:
    """ln p in data space [rows, draws, probes]; exact traces are one value."""
    field = field_of(denoiser.process, steps)
    points = part.draws if budget.pointwise else 1
    probes = _probes(denoiser, part, budget)
    conditions = denoiser.conditions(part.request, points)
    divergence = Divergence(denoiser, field, probes, conditions, widen)
    start = _points(denoiser, part, budget, points).flatten(1) * float(np.exp(field.log_start))
    end, integral = yield from _integrate(divergence, start, steps)
    total = integral.sum(axis=1, keepdims=True) if budget.exact else integral
    squares = np.square(end.double().numpy()).sum(axis=1, keepdims=True)
    log_prior = -0.5 * squares / field.prior_sd**2 - denoiser.elements * np.log(
        field.prior_sd * np.sqrt(2.0 * np.pi)
    )
    constant = denoiser.elements * field.log_start + units.log_abs_det(denoiser.data)
    return np.asarray((log_prior + total + constant).reshape(part.request.rows, part.draws, -1), np.float64)


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


def _points(denoiser: Denoiser, part: Part, budget: Budget, points: int) -> torch.Tensor:
    """Data rows, each ``points`` times, dequantised: float32 [rows * points, *shape]."""
    assert part.request.data is not None
    x = denoiser.to_model(part.request.data).repeat_interleave(points, dim=0)
    if not budget.pointwise:
        return x
    uniform = philox_uniform(
        *_keys(part, _drawn(part), np.zeros(1, np.int64), STREAM_LATENT), denoiser.elements
    )
    return units.dequantize(denoiser.data, x, uniform.reshape(x.shape))


def _probes(denoiser: Denoiser, part: Part, budget: Budget) -> Probes:
    """One Rademacher vector per probe for the whole path, or the basis."""
    n = denoiser.elements
    within = np.arange(budget.probes if budget.pointwise else 1)
    points, lines = (_drawn(part), within) if budget.pointwise else (within, _drawn(part))
    states = part.request.rows * len(points)
    if budget.exact:
        return Probes(torch.eye(n).expand(states, n, n), exact=True)
    words = philox_words(*_keys(part, points, lines, STREAM_PROBE), n)
    return Probes((2.0 * (words & 1) - 1.0).float().reshape(states, len(lines), n), exact=False)


def _drawn(part: Part) -> Ints:
    return np.arange(part.first, part.first + part.draws)


def _keys(
    part: Part, points: Ints, lines: Ints, stream: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(seed, row, line, stream word) [rows * points * lines]: line is the probe, particle the point."""
    times = len(points) * len(lines)
    rows = np.repeat(part.numbers, times)
    seed = np.full(len(rows), np.uint64(part.request.seed).astype(np.int64))
    point = np.tile(np.repeat(points, len(lines)), len(part.numbers))
    line = np.tile(lines, len(part.numbers) * len(points))
    words = stream + STREAMS_PER_PARTICLE * point
    return torch.from_numpy(seed), torch.from_numpy(rows), torch.from_numpy(line), torch.from_numpy(words)
