"""Annealed importance sampling (Neal 2001) from a Gaussian base q0 to p(z) p(x | z).

With g(z) = ln p(x | z) p(z) - ln q0(z), the path is f_b = q0 exp(b g), b from 0 to 1 (Wu et al. 2017 take
q0 = p(z), or an encoder's posterior). In standardised coordinates u, where q0 is N(0, I), every move
rotates (u, momentum), which conserves their joint law, kicks the momentum by b grad g where a gradient is
known, and is accepted by exact energies: Hamiltonian Monte Carlo by splitting (Beskos et al. 2011), which
without gradient and with one leap is preconditioned Crank-Nicolson (Cotter et al. 2013). Both leave f_b
invariant, so the mean of exp(log_weight) is unbiased for p(x) whatever the temperatures and the angles of
rotation, so long as they were chosen without the scored draws: a pilot run with noise of its own chooses
them per row. Its temperatures are spaced evenly in thermodynamic length, the integral of the standard
deviation of g over b (Gelman and Meng 1998), which is where the variance of the weights comes from.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch

from kernels.philox import STREAM_LATENT, STREAM_RESAMPLE, STREAM_STEP
from serving.families.latent.evaluator import Steps, row_sum
from serving.families.latent.lanes import Lanes
from serving.families.latent.run import Run

PILOT_CHAINS = 8
PILOT_FIRST = 1 << 20  # particle numbers of the pilot, out of reach of scored chains
SHARPNESS = 4.0  # of the sigmoid of temperatures (Wu et al. 2017, section 4)
SMALLEST_ANGLE = 1e-3
ADAPTATION = 0.7  # of ln(angle) per unit of acceptance
PILOT_SHARE = 0.8  # of the spacing of temperatures; the rest keeps the sigmoid's


class Target(ABC):
    """g in standardised coordinates, per lane."""

    dims: int
    leaps: int = 1  # rotations per move
    acceptance: float = 0.35  # that the pilot aims at
    rows_per_evaluation: dict[str, int]

    @abstractmethod
    def evaluate(self, u: torch.Tensor, lanes: Lanes) -> Steps[tuple[torch.Tensor, torch.Tensor | None]]:
        """g [lanes] and its gradient [lanes, dims] (None: not known), float64, for u [lanes, dims]."""


@dataclass(frozen=True)
class Chains:
    """States of all lanes, float64: position, g and its gradient there, log-weight."""

    u: torch.Tensor
    g: torch.Tensor
    gradient: torch.Tensor | None
    log_weight: torch.Tensor


def temperatures(steps: int) -> np.ndarray:
    """0 to 1 in ``steps`` steps along a sigmoid, which is slow where g is far from constant."""
    sigmoid = 1.0 / (1.0 + np.exp(-SHARPNESS * (2.0 * np.arange(steps + 1) / steps - 1.0)))
    return np.asarray((sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0]), np.float64)


@dataclass(frozen=True)
class Annealer:
    """AIS of one request: temperatures [rows, steps + 1] and angles [rows, steps], float64."""

    target: Target
    betas: torch.Tensor
    angles: torch.Tensor

    @property
    def steps(self) -> int:
        """Temperatures after the first."""
        return self.angles.shape[1]

    @classmethod
    def tuned(cls, run: Run, target: Target, steps: int) -> Steps[Annealer]:
        """With the temperatures and angles that a pilot run, of noise of its own, finds fit."""
        largest = 0.5 * math.pi / target.leaps
        angles = torch.full((run.rows, steps), largest, dtype=torch.float64, device=run.device)
        betas = torch.from_numpy(temperatures(steps)).to(run.device).expand(run.rows, -1)
        pilot = cls(target, betas, angles)
        lanes = Lanes.of(run.request, PILOT_CHAINS, run.device, first=PILOT_FIRST)
        chains = yield from pilot.start(lanes)
        spreads = np.empty((run.rows, steps))
        for step in range(steps):
            spreads[:, step] = chains.g.reshape(run.rows, PILOT_CHAINS).cpu().numpy().std(axis=1)
            chains, accepted = yield from pilot.advance(chains, lanes, step)
            excess = accepted.reshape(run.rows, PILOT_CHAINS).mean(dim=1) - target.acceptance
            following = angles[:, step] * torch.exp(ADAPTATION * excess)
            angles[:, min(step + 1, steps - 1)] = following.clamp(SMALLEST_ANGLE, largest)
        found = _respaced(temperatures(steps), spreads, angles.log().cpu().numpy())
        return cls(target, *(torch.from_numpy(part).to(run.device) for part in found))

    def run(self, lanes: Lanes) -> Steps[Chains]:
        """All temperatures; the last move is at temperature 1, so ``u`` follows the posterior by weight."""
        chains = yield from self.start(lanes)
        for step in range(self.steps):
            chains, _ = yield from self.advance(chains, lanes, step)
        return chains

    def start(self, lanes: Lanes) -> Steps[Chains]:
        """Independent draws of the base."""
        u = lanes.normal(STREAM_LATENT, 0, self.target.dims).double()
        g, gradient = yield from self.target.evaluate(u, lanes)
        return Chains(u, g, gradient, torch.zeros_like(g))

    def advance(self, chains: Chains, lanes: Lanes, step: int) -> Steps[tuple[Chains, torch.Tensor]]:
        """Weigh by the next temperature, then one move there; also the probability of acceptance."""
        beta = self.betas[lanes.owner, step + 1]
        log_weight = chains.log_weight + (beta - self.betas[lanes.owner, step]) * chains.g
        angle = self.angles[lanes.owner, step].unsqueeze(1)
        momentum = lanes.normal(STREAM_STEP, step + 1, self.target.dims).double()
        before = row_sum(0.5 * (chains.u.square() + momentum.square())) - beta * chains.g
        moved, momentum = yield from self._leap(chains, momentum, angle, beta, lanes)
        after = row_sum(0.5 * (moved.u.square() + momentum.square())) - beta * moved.g
        log_ratio = torch.nan_to_num(before - after, nan=-torch.inf)
        threshold = lanes.uniform(STREAM_RESAMPLE, step + 1, 1)[:, 0].double().log()
        kept = _select(threshold < log_ratio, moved, chains)
        return Chains(kept.u, kept.g, kept.gradient, log_weight), log_ratio.clamp_max(0.0).exp()

    def _leap(
        self, chains: Chains, momentum: torch.Tensor, angle: torch.Tensor, beta: torch.Tensor, lanes: Lanes
    ) -> Steps[tuple[Chains, torch.Tensor]]:
        """``leaps`` times: half a kick, a rotation, half a kick; reversible, and keeps volume."""
        u, g, gradient = chains.u, chains.g, chains.gradient
        kick = 0.5 * beta.unsqueeze(1) * angle
        cosine, sine = torch.cos(angle), torch.sin(angle)
        for _ in range(self.target.leaps):
            momentum = _kick(momentum, gradient, kick)
            u, momentum = cosine * u + sine * momentum, cosine * momentum - sine * u
            g, gradient = yield from self.target.evaluate(u, lanes)
            momentum = _kick(momentum, gradient, kick)
        return Chains(u, g, gradient, chains.log_weight), momentum


def _respaced(
    betas: np.ndarray, spreads: np.ndarray, log_angles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Temperatures even in length given spreads of g [rows, steps] at betas[:-1], and the angles there."""
    steps = len(betas) - 1
    even = np.linspace(0.0, 1.0, steps + 1)
    spaced, angles = np.empty((len(spreads), steps + 1)), np.empty((len(spreads), steps))
    for row, spread in enumerate(spreads):
        length = np.concatenate([[0.0], np.cumsum(spread * np.diff(betas))])
        share = PILOT_SHARE if np.isfinite(length[-1]) and length[-1] > 0.0 else 0.0
        progress = share * length / (length[-1] if share else 1.0) + (1.0 - share) * even
        spaced[row] = np.interp(even, progress, betas)
        angles[row] = np.exp(np.interp(spaced[row, 1:], betas[1:], log_angles[row]))
    spaced[:, 0], spaced[:, -1] = 0.0, 1.0
    return spaced, angles


def evaluations(steps: int, leaps: int, chains: int) -> int:
    """Evaluations of g per row: the start, then one per leap."""
    return chains * (1 + steps * leaps)


def _kick(momentum: torch.Tensor, gradient: torch.Tensor | None, size: torch.Tensor) -> torch.Tensor:
    return momentum if gradient is None else momentum + size * gradient


def _select(accept: torch.Tensor, new: Chains, old: Chains) -> Chains:
    column = accept.unsqueeze(1)
    gradient = None
    if new.gradient is not None and old.gradient is not None:
        gradient = torch.where(column, new.gradient, old.gradient)
    return Chains(
        torch.where(column, new.u, old.u), torch.where(accept, new.g, old.g), gradient, old.log_weight
    )
