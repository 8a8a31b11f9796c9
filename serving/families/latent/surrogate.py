"""The surrogate p_sigma(x) = E_z N(x; G(z), sigma^2 I) of a GAN, sigma in data units."""

from __future__ import annotations

import math

import numpy as np
import torch

from kernels.philox import STREAM_RESAMPLE
from serving.errors import FailedPrecondition
from serving.families import units
from serving.families.capability import Method, Parameter
from serving.families.latent import annealing
from serving.families.latent.annealing import PILOT_CHAINS, Annealer
from serving.families.latent.evaluator import Steps
from serving.families.latent.gaussian import DiagonalGaussian
from serving.families.latent.inversion import Problem
from serving.families.latent.lanes import Lanes
from serving.families.latent.observation import Gaussian
from serving.families.latent.posterior_target import LEAPS, Decoder, PosteriorTarget
from serving.families.latent.refinement import (
    OBSERVED,
    PRECISION,
    Budget,
    Estimate,
    log_mean_exp,
    refine,
)
from serving.families.latent.resampling import choose
from serving.families.latent.run import Run
from serving.families.request import Request
from serving.families.result import (
    BaseMeasure,
    Completed,
    CompletionKind,
    LikelihoodKind,
    Result,
    Scored,
)

MODEL_SIGMA = 0.2  # of inversions and completions, in model units: near what a GAN's images miss real ones by

UNDEFINED = (
    "a GAN's law lies on a set of measure zero, so log p(x) is undefined; give surrogate_sigma (in data "
    "units) for the density of its samples with Gaussian noise, or use a model of the family vae, "
    "diffusion or autoregressive"
)

AIS = Method(
    "ais",
    "SURROGATE",
    (
        Parameter("surrogate_sigma", "float", None, 1e-6, 1e6),
        Parameter("steps", "int", 200, 1, 100_000),
        Parameter("importance_samples", "int", 16, 1, 10_000),
        *PRECISION,
        OBSERVED,
    ),
    is_default=True,
    reference="Wu et al. 2017; undefined without surrogate_sigma",
)


def generator(run: Run, std: torch.Tensor | float = MODEL_SIGMA) -> Decoder:
    """G as a decoder whose observation is N(G(z), std^2), std in model coordinates."""
    assert run.spec.gan is not None
    observation = Gaussian(run.spec.data, std)
    return Decoder(run.networks, "generator", run.spec.gan.latent_shape, observation, (("x", "mean"),))


def problem(run: Run, x: torch.Tensor, observed: torch.Tensor | None) -> Problem:
    """The inversion of x [rows, *shape]."""
    std = torch.tensor(MODEL_SIGMA, dtype=torch.float64, device=run.device)
    return Problem(run, generator(run), x, observed, std, _dims(run))


def likelihood(run: Run) -> Steps[Result]:
    """ln p_sigma by annealed importance sampling; OPERATION_UNDEFINED at once where no sigma is declared."""
    return _likelihood(run, _sigma(run.request))


def _sigma(request: Request) -> float:
    sigma = request.parameters.get("surrogate_sigma")
    if sigma is None:
        raise FailedPrecondition(UNDEFINED, reason="OPERATION_UNDEFINED")
    return float(sigma)  # type: ignore[arg-type]


def _likelihood(run: Run, sigma: float) -> Steps[Result]:
    std = sigma * torch.from_numpy(np.abs(units.scale(run.spec.data)))
    target = _target(run, generator(run, std))
    annealer = yield from Annealer.tuned(run, target, run.integer("steps"))

    def draw(lanes: Lanes) -> Steps[torch.Tensor]:
        return (yield from annealer.run(lanes)).log_weight

    def answer(estimate: Estimate) -> Scored:
        return Scored(
            log_prob=estimate.value.copy(),
            scored_dims=run.scored_dims,
            kind=LikelihoodKind.SURROGATE,
            target="p_sigma",
            base_measure=BaseMeasure.LEBESGUE,
            standard_error=estimate.standard_error.copy(),
            effective_sample_size=estimate.ess.copy(),
            network_evaluations=run.networks.evaluations.copy(),
            parameters=run.parameters,
        )

    budget = _budget(run.request, target.decoder.differentiable)
    return (yield from refine(run, budget, draw, log_mean_exp, answer))


def inpaint(run: Run) -> Steps[Result]:
    """Latents of p_sigma(z | x_given) by annealed chains and their weights; x_missing = G(z)_missing."""
    particles, copies = run.integer("particles"), run.request.completions
    target = _target(run, generator(run))
    annealer = yield from Annealer.tuned(run, target, run.integer("steps"))
    lanes = run.lanes(particles)
    chains = yield from annealer.run(lanes)
    log_weights = chains.log_weight.reshape(run.rows, particles)
    drawn = run.lanes(copies)
    index = choose(log_weights, drawn.uniform(STREAM_RESAMPLE, 0, 1).reshape(run.rows, copies))
    z = target.latents(chains.u, lanes).reshape(run.rows, particles, -1)
    chosen = z.gather(1, index.unsqueeze(2).expand(-1, -1, z.shape[2])).flatten(0, 1)
    outputs = yield from target.decoder.outputs(chosen, drawn)
    weights = units.log_mean_exp(log_weights.cpu().numpy())
    return Completed(
        run.completed(outputs["mean"].float(), copies),
        CompletionKind.APPROXIMATE,
        effective_sample_size=weights.ess,
        parameters=run.parameters,
    )


def likelihood_rows(request: Request, differentiable: bool) -> dict[str, int]:
    """Upper bound of network rows by component; OPERATION_UNDEFINED where no sigma is declared."""
    _sigma(request)
    draws = _budget(request, differentiable).most + PILOT_CHAINS
    return _rows(request, draws, differentiable)


def inpaint_rows(request: Request, differentiable: bool) -> dict[str, int]:
    """Upper bound of network rows by component."""
    draws = int(request.parameters["particles"]) + PILOT_CHAINS  # type: ignore[arg-type]
    rows = _rows(request, draws, differentiable)
    return rows | {"generator": rows["generator"] + request.rows * request.completions}


def _target(run: Run, decoder: Decoder) -> PosteriorTarget:
    base = DiagonalGaussian.prior(run.rows, _dims(run), run.device)
    return PosteriorTarget(decoder, base, run.x(), run.observed)


def _dims(run: Run) -> int:
    assert run.spec.gan is not None
    return math.prod(run.spec.gan.latent_shape)


def _per_draw(request: Request, differentiable: bool) -> int:
    steps = int(request.parameters["steps"])  # type: ignore[arg-type]
    return annealing.evaluations(steps, LEAPS if differentiable else 1, 1)


def _budget(request: Request, differentiable: bool) -> Budget:
    per_draw = _per_draw(request, differentiable) * (2 if differentiable else 1)
    return Budget.of(request, PILOT_CHAINS * per_draw, per_draw)


def _rows(request: Request, draws: int, differentiable: bool) -> dict[str, int]:
    rows = request.rows * draws * _per_draw(request, differentiable)
    return {"generator": rows} | ({"generator_vjp": rows} if differentiable else {})
