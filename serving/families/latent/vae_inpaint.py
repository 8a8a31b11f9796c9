"""Completions of a VAE: draws of p(x_missing | x_given) by Gibbs sweeps or by importance resampling."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.philox import STREAM_LATENT, STREAM_RESAMPLE
from serving.families import units
from serving.families.capability import Method, Parameter
from serving.families.entropy import ENTROPY
from serving.families.latent.evaluator import Steps, row_sum
from serving.families.latent.gaussian import DiagonalGaussian, prior_log_prob
from serving.families.latent.lanes import Lanes
from serving.families.latent.level_shares import LevelShares
from serving.families.latent.observation import ObservationModel
from serving.families.latent.resampling import choose
from serving.families.latent.run import Run
from serving.families.latent.vae_model import FILL_SWEEPS, VaeModel
from serving.families.request import Request
from serving.families.result import BaseMeasure, Completed, CompletionKind, Result

WARM_SWEEPS = 5  # without correction, to come near the given entries
MOMENTS = Parameter("moments", "bool", False)
SWEEPS = Parameter("sweeps", "int", 100, 1, 100_000)

METROPOLIS = Method(
    "metropolis_within_gibbs",
    "CONSISTENT",
    (SWEEPS, MOMENTS),
    is_default=True,
    reference="Mattei and Frellsen 2018, algorithm 2",
)
IMPORTANCE = Method(
    "importance",
    "CONSISTENT",
    (Parameter("particles", "int", 256, 1, 100_000), MOMENTS),
    reference="Rubin 1987; Mattei and Frellsen 2019, section 3",
)
PSEUDO = Method("pseudo_gibbs", "APPROXIMATE", (SWEEPS, MOMENTS), reference="Rezende et al. 2014, appendix F")
METHODS = (METROPOLIS, IMPORTANCE, PSEUDO)


def methods(observation: ObservationModel, levels: int) -> tuple[Method, ...]:
    """Entropy too where the decoder gives levels their probabilities."""
    if not levels or observation.base_measure is not BaseMeasure.COUNTING:
        return METHODS
    return tuple(replace(method, parameters=(*method.parameters, ENTROPY)) for method in METHODS)


Image = NDArray[np.float32]


def inpaint(run: Run, observation: ObservationModel) -> Steps[Result]:
    """The program of an Inpaint request."""
    model = VaeModel(run, observation)
    return (yield from (_importance if run.request.method == "importance" else _gibbs)(model))


@dataclass(frozen=True)
class State:
    """One chain per lane: x in model coordinates, z, and the decoder's outputs at z."""

    x: torch.Tensor
    z: torch.Tensor
    outputs: dict[str, torch.Tensor]


@dataclass
class Averages:
    """Of the conditional moments of x given z, over the second half of the sweeps (Rao-Blackwell)."""

    first: int
    count: int = 0
    mean: torch.Tensor | float = 0.0
    square: torch.Tensor | float = 0.0

    def add(self, sweep: int, observation: ObservationModel, outputs: dict[str, torch.Tensor]) -> None:
        """Take in one sweep."""
        if sweep < self.first:
            return
        mean, variance = observation.moments(outputs)
        self.count += 1
        self.mean, self.square = self.mean + mean, self.square + variance + mean.square()


def _gibbs(model: VaeModel) -> Steps[Result]:
    run, corrected = model.run, model.run.request.method == "metropolis_within_gibbs"
    observed, copies, sweeps = run.observed, run.request.completions, run.integer("sweeps")
    assert observed is not None
    lanes = run.lanes(copies)
    given = observed[lanes.owner]
    state = yield from _start(model, lanes, given)
    averages, shares = Averages(sweeps // 2 if run.flag("moments") else sweeps), _shares(model)
    for sweep in range(sweeps):
        state = yield from _sweep(model, state, lanes, sweep + 1, corrected and sweep >= WARM_SWEEPS)
        averages.add(sweep, model.observation, state.outputs)
        if shares is not None and sweep >= sweeps // 2:
            shares.add(state.outputs, lanes.owner, torch.ones_like(lanes.owner, dtype=torch.float64))
        drawn = model.observation.sample(state.outputs, lanes, sweep + 1)
        state = State(torch.where(given, state.x, drawn), state.z, state.outputs)
    mean, variance = _of_chains(model, averages, copies)
    kind = CompletionKind.CONSISTENT if corrected else CompletionKind.APPROXIMATE
    data = run.completed(state.x, copies)
    entropy = None if shares is None else shares.entropy()
    return Completed(data, kind, mean=mean, variance=variance, parameters=run.parameters, entropy=entropy)


def _shares(model: VaeModel) -> LevelShares | None:
    return LevelShares(model.run, model.observation) if model.run.flag("entropy") else None


def _start(model: VaeModel, lanes: Lanes, given: torch.Tensor) -> Steps[State]:
    filled = yield from model.filled(model.run.x(), model.run.observed)
    x = filled[lanes.owner]
    z = (yield from model.posterior(x, lanes)).transport(lanes.normal(STREAM_LATENT, 0, model.dims))
    outputs = yield from model.decoder.outputs(z, lanes)
    return State(torch.where(given, x, model.observation.sample(outputs, lanes, 0)), z, outputs)


def _sweep(model: VaeModel, state: State, lanes: Lanes, line: int, corrected: bool) -> Steps[State]:
    """z ~ q(z | x), accepted by the ratio with all four terms at the current x; else always."""
    posterior = yield from model.posterior(state.x, lanes)
    z = posterior.transport(lanes.normal(STREAM_LATENT, line, model.dims))
    outputs = yield from model.decoder.outputs(z, lanes)
    if not corrected:
        return State(state.x, z, outputs)
    ratio = _log_target(model, posterior, state.x, z, outputs)
    ratio = ratio - _log_target(model, posterior, state.x, state.z, state.outputs)
    uniform = lanes.uniform(STREAM_RESAMPLE, line, 1)[:, 0].double()
    accept = uniform.log() < torch.nan_to_num(ratio, nan=-torch.inf)
    return State(
        state.x,
        _where(accept, z, state.z),
        {name: _where(accept, value, state.outputs[name]) for name, value in outputs.items()},
    )


def _log_target(
    model: VaeModel,
    posterior: DiagonalGaussian,
    x: torch.Tensor,
    z: torch.Tensor,
    outputs: dict[str, torch.Tensor],
) -> torch.Tensor:
    """ln p(x | z) p(z) / q(z | x): x is the whole state, its missing entries included."""
    return row_sum(model.observation.log_prob(outputs, x)) + prior_log_prob(z) - posterior.log_prob(z)


def _where(accept: torch.Tensor, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    return torch.where(accept.reshape(-1, *(1,) * (new.dim() - 1)), new, old)


def _of_chains(model: VaeModel, averages: Averages, copies: int) -> tuple[Image | None, Image | None]:
    if not averages.count:
        return None, None
    shape = (model.run.rows, copies, *model.run.spec.data.shape)
    mean, square = (torch.as_tensor(value) / averages.count for value in (averages.mean, averages.square))
    mean, square = mean.reshape(shape).mean(dim=1), square.reshape(shape).mean(dim=1)
    return _in_data_units(model, mean, square - mean.square())


def _importance(model: VaeModel) -> Steps[Result]:
    """Latents by weight p(x_given | z) p(z) / q(z), then missing entries by p(x | z)."""
    run, particles, copies = model.run, model.run.integer("particles"), model.run.request.completions
    proposal = yield from model.proposal()
    lanes = run.lanes(particles)
    z, log_q = proposal.draw(lanes)
    likelihood = yield from model.decoder.log_likelihood(z, lanes, proposal.x, proposal.observed)
    log_weights = (likelihood + prior_log_prob(z) - log_q).reshape(run.rows, particles)
    drawn = run.lanes(copies)
    uniforms = drawn.uniform(STREAM_RESAMPLE, 1, 1).reshape(run.rows, copies)
    index = choose(log_weights, uniforms)
    chosen = z.reshape(run.rows, particles, -1).gather(1, index.unsqueeze(2).expand(-1, -1, model.dims))
    outputs = yield from model.decoder.outputs(chosen.flatten(0, 1), drawn)
    data = run.completed(model.observation.sample(outputs, drawn, 0), copies)
    evidence = units.log_mean_exp(log_weights.cpu().numpy())
    shares = _shares(model)
    mean, variance = yield from _of_particles(model, z, lanes, log_weights, shares)
    return Completed(
        data,
        CompletionKind.CONSISTENT,
        evidence.ess,
        evidence.value,
        mean,
        variance,
        parameters=run.parameters,
        entropy=None if shares is None else shares.entropy(),
    )


def _of_particles(
    model: VaeModel, z: torch.Tensor, lanes: Lanes, log_weights: torch.Tensor, shares: LevelShares | None
) -> Steps[tuple[Image | None, Image | None]]:
    if not model.run.flag("moments") and shares is None:
        return None, None
    weights = torch.softmax(log_weights, dim=1).flatten()
    shape = (model.run.rows, *model.run.spec.data.shape)
    totals = torch.zeros((2, *shape), dtype=torch.float64, device=model.run.device)

    def add(outputs: dict[str, torch.Tensor], part: slice) -> None:
        mean, variance = model.observation.moments(outputs)
        weight = weights[part].reshape(-1, *(1,) * (mean.dim() - 1))
        totals[0].index_add_(0, lanes.owner[part], weight * mean)
        totals[1].index_add_(0, lanes.owner[part], weight * (variance + mean.square()))
        if shares is not None:
            shares.add(outputs, lanes.owner[part], weights[part].double())

    yield from model.decoder.each(z, lanes, add)
    if not model.run.flag("moments"):
        return None, None
    return _in_data_units(model, totals[0], totals[1] - totals[0].square())


def _in_data_units(model: VaeModel, mean: torch.Tensor, variance: torch.Tensor) -> tuple[Image, Image]:
    """Model coordinates to data units; given entries have their value and no variance."""
    space, run = model.run.spec.data, model.run
    given = run.request.observed
    assert given is not None
    mean_data = (mean.cpu().numpy() - units.shift(space)) / units.scale(space)
    variance_data = variance.clamp_min(0.0).cpu().numpy() / np.square(units.scale(space))
    known = np.where(given, run.data, 0).astype(np.float32)
    return (
        np.where(given, known, mean_data).astype(np.float32),
        np.where(given, 0.0, variance_data).astype(np.float32),
    )


def inpaint_rows(request: Request) -> dict[str, int]:
    """Upper bound of network rows by component."""
    rows, copies = request.rows, request.completions
    if request.method == "importance":
        particles = int(request.parameters["particles"])  # type: ignore[arg-type]
        maps = request.parameters.get("moments") or request.parameters.get("entropy")
        passes = 2 if maps else 1
        return {"encoder": rows * FILL_SWEEPS, "decoder": rows * (FILL_SWEEPS + copies + passes * particles)}
    sweeps = int(request.parameters["sweeps"])  # type: ignore[arg-type]
    chains = copies * (sweeps + 1)
    return {"encoder": rows * (FILL_SWEEPS - 1 + chains), "decoder": rows * (FILL_SWEEPS + chains)}
