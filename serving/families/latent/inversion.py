"""Latents that explain given entries: minima of |m (x - G(z))|^2 / (2 sigma^2) + |z|^2 / 2, from restarts.

That is the posterior's mode under N(G(z), sigma^2 I) and the prior (Yeh et al. 2017 and Creswell and Bharath
2019 minimise relatives of it). Starts are the best of random draws, the origin, and an encoder's answer if
there is one. Without derivatives: Levenberg-Marquardt on a finite-difference Jacobian, d + 4 network rows an
iteration, all of them at once. With the generator's vector-Jacobian product: Adam.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.philox import STREAM_LATENT
from serving.families.latent.evaluator import ROWS_PER_CALL, Steps
from serving.families.latent.gaussian import prior_log_prob
from serving.families.latent.lanes import Lanes
from serving.families.latent.posterior_target import Decoder, masked
from serving.families.latent.run import Run

SCREENED = 64  # random draws that starts are chosen from
RESTARTS = 2
ITERATIONS = 10  # of Levenberg-Marquardt
ADAM_ITERATIONS = 200
ADAM_RATE = 0.1
DIFFERENCE = 1e-2  # step of the Jacobian, in latent units: float32 networks leave 1e-5 of noise
DAMPINGS = (0.1, 1.0, 10.0)  # tried side by side, times the damping that won last

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """What each lane minimises; ``x`` and ``observed`` are per row, in model coordinates."""

    run: Run
    decoder: Decoder  # its Gaussian observation model holds sigma
    x: torch.Tensor
    observed: torch.Tensor | None
    std: torch.Tensor  # sigma in model coordinates, broadcastable to a row
    dims: int

    def energies(self, z: torch.Tensor, lanes: Lanes) -> Steps[torch.Tensor]:
        """-ln p(x, z), float64 [lanes]."""
        likelihood = yield from self.decoder.log_likelihood(z, lanes, self.x, self.observed)
        return -likelihood - prior_log_prob(z)


def invert(problem: Problem, groups: int = 1) -> Steps[torch.Tensor]:
    """The best latents found for ``groups`` independent searches per row, float32 [rows * groups, d].

    Search k of a row draws its own starts: it does not depend on how many searches there are.
    """
    z = yield from _starts(problem, groups)
    lanes = problem.run.lanes(groups * RESTARTS)
    found = yield from (_adam if problem.decoder.differentiable else _levenberg_marquardt)(problem, z, lanes)
    energy = yield from problem.energies(found, lanes)
    return _best(found, energy, problem.run.rows * groups, 1).flatten(0, 1)


def _starts(problem: Problem, groups: int) -> Steps[torch.Tensor]:
    """The RESTARTS candidates of least energy per search, float32 [rows * groups * RESTARTS, d]."""
    run = problem.run
    drawn = run.lanes(groups * SCREENED).normal(STREAM_LATENT, 0, problem.dims)
    fixed = yield from _informed(problem)
    shape = (run.rows * groups, SCREENED, problem.dims)
    informed = fixed.repeat_interleave(groups, dim=0)  # [searches, guesses, d]
    candidates = torch.cat([informed, drawn.reshape(shape)], dim=1)
    flat = candidates.flatten(0, 1)
    lanes = run.lanes(groups * candidates.shape[1])
    energy = yield from problem.energies(flat, lanes)
    return _best(flat, energy, run.rows * groups, RESTARTS).flatten(0, 1)


def _informed(problem: Problem) -> Steps[torch.Tensor]:
    """The origin, and what an encoder says where the package has one; [rows, guesses, d]."""
    run, lanes = problem.run, problem.run.lanes()
    origin = torch.zeros((run.rows, problem.dims), device=run.device)
    if "encoder" not in run.spec.components:
        return origin.unsqueeze(1)
    x = problem.x
    if problem.observed is not None:
        typical = yield from problem.decoder.outputs(origin, lanes)
        x = torch.where(problem.observed, x, typical["mean"].float())
    outputs = yield from run.networks.outputs("encoder", {"x": x}, lanes.owner)
    return torch.stack([origin, outputs["latent"].flatten(1).float()], dim=1)


def _best(z: torch.Tensor, energy: torch.Tensor, searches: int, count: int) -> torch.Tensor:
    """The ``count`` latents of least energy of each search, [searches, count, d]."""
    ordered = torch.nan_to_num(energy, nan=torch.inf).reshape(searches, -1).argsort(dim=1, stable=True)
    index = ordered[:, :count].unsqueeze(2).expand(-1, -1, z.shape[1])
    return z.reshape(searches, -1, z.shape[1]).gather(1, index)


def _levenberg_marquardt(problem: Problem, z: torch.Tensor, lanes: Lanes) -> Steps[torch.Tensor]:
    """A fixed number of iterations: no lane stops for another's sake."""
    damping = np.ones(len(lanes))
    energy = (yield from problem.energies(z, lanes)).cpu().numpy()
    for _ in range(ITERATIONS):
        normal, slope = yield from _normal_equations(problem, z, lanes)
        trials = _trials(z, normal, slope, damping)  # [lanes, dampings, d]
        wide = _repeated(lanes, len(DAMPINGS))
        tried = (
            (yield from problem.energies(trials.flatten(0, 1), wide)).reshape(len(lanes), -1).cpu().numpy()
        )
        tried = np.nan_to_num(tried, nan=np.inf)
        choice = tried.argmin(axis=1)
        index = np.arange(len(lanes))
        better = tried[index, choice] < energy
        energy = np.where(better, tried[index, choice], energy)
        factor = np.where(better, np.asarray(DAMPINGS)[choice], 100.0)
        damping = np.clip(damping * factor, 1e-6, 1e12)
        accepted = torch.from_numpy(better).to(z.device).unsqueeze(1)
        z = torch.where(accepted, trials[index, choice], z)
    return z


def _repeated(lanes: Lanes, times: int) -> Lanes:
    """Each lane several times, for candidates that share its row and draw no noise."""
    owner, particle = lanes.owner.repeat_interleave(times), lanes.particle.repeat_interleave(times)
    return Lanes(lanes.seed, lanes.first_row, owner, particle)


def _trials(z: torch.Tensor, normal: Floats, slope: Floats, damping: Floats) -> torch.Tensor:
    """z + (J'J + I + damping I)^-1 (J'r - z) for each damping tried."""
    identity = np.eye(z.shape[1])
    size = 1.0 + damping[:, None] * np.asarray(DAMPINGS)
    systems = normal[:, None] + size[:, :, None, None] * identity
    right = np.broadcast_to(slope[:, None, :, None], (*size.shape, z.shape[1], 1))
    moves = np.linalg.solve(systems, right)[..., 0]
    return (z.double().unsqueeze(1) + torch.from_numpy(moves).to(z.device)).float()


def _normal_equations(problem: Problem, z: torch.Tensor, lanes: Lanes) -> Steps[tuple[Floats, Floats]]:
    """J'J [lanes, d, d] and J'r - z [lanes, d], with residuals r = m (x - G(z)) / sigma."""
    group = max(1, ROWS_PER_CALL // (problem.dims + 1))
    normals, slopes = [], []
    for start in range(0, len(lanes), group):
        part = slice(start, start + group)
        normal, slope = yield from _linearised(problem, z[part], lanes[part])
        normals.append(normal)
        slopes.append(slope)
    return np.concatenate(normals), np.concatenate(slopes)


def _linearised(problem: Problem, z: torch.Tensor, lanes: Lanes) -> Steps[tuple[Floats, Floats]]:
    count, dims = z.shape
    steps = torch.cat([torch.zeros(1, dims), DIFFERENCE * torch.eye(dims)]).to(z.device)
    moved = (z.unsqueeze(1) + steps).flatten(0, 1)
    outputs = yield from problem.decoder.outputs(moved, _repeated(lanes, dims + 1))
    values = outputs["mean"].double() / problem.std
    values = values.reshape(count, dims + 1, *values.shape[1:])
    mask = None if problem.observed is None else problem.observed[lanes.owner]
    residual = masked(problem.x[lanes.owner].double() / problem.std - values[:, 0], mask).flatten(1)
    difference = values[:, 1:] - values[:, :1]
    # the step that float32 really took, which is not DIFFERENCE
    taken = (moved.reshape(count, dims + 1, dims)[:, 1:].diagonal(dim1=1, dim2=2) - z).double()
    jacobian = masked(difference, None if mask is None else mask.unsqueeze(1)).flatten(2) / taken.unsqueeze(2)
    rows, right = jacobian.cpu().numpy(), residual.cpu().numpy()
    slope = (rows @ right[:, :, None])[..., 0] - z.double().cpu().numpy()
    return rows @ rows.transpose(0, 2, 1), slope


def _adam(problem: Problem, z: torch.Tensor, lanes: Lanes) -> Steps[torch.Tensor]:
    """Kingma and Ba 2015 with a cosine rate; the best point met counts."""
    first, second, best = torch.zeros_like(z).double(), torch.zeros_like(z).double(), z
    least = torch.full((len(lanes),), torch.inf, dtype=torch.float64, device=z.device)
    for step in range(ADAM_ITERATIONS):
        value, gradient = yield from problem.decoder.with_gradient(z, lanes, problem.x, problem.observed)
        energy = -value - prior_log_prob(z)
        better = energy < least
        least, best = torch.where(better, energy, least), torch.where(better.unsqueeze(1), z, best)
        slope = z.double() - gradient
        first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope.square()
        rate = ADAM_RATE * 0.5 * (1.0 + np.cos(np.pi * step / ADAM_ITERATIONS))
        move = (first / (1.0 - 0.9 ** (step + 1))) / ((second / (1.0 - 0.99 ** (step + 1))).sqrt() + 1e-8)
        z = (z.double() - rate * move).float()
    return best


def inversion_rows(
    components: Mapping[str, object], masked_data: bool, dims: int, groups: int
) -> dict[str, int]:
    """Network rows of one row's ``groups`` searches, by component."""
    encoder = "encoder" in components
    search = SCREENED + (2 if encoder else 1) + RESTARTS  # candidates, and the final energies
    extra = 1 if encoder and masked_data else 0
    rows = {"encoder": 1} if encoder else {}
    if "generator_vjp" in components:
        steps = RESTARTS * ADAM_ITERATIONS
        return rows | {"generator": extra + groups * (search + steps), "generator_vjp": groups * steps}
    steps = RESTARTS * (1 + ITERATIONS * (dims + 1 + len(DAMPINGS)))
    return rows | {"generator": extra + groups * (search + steps)}
