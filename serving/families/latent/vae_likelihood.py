"""ln p(x) of a VAE: a bound from its encoder, importance sampling, annealing; also of given entries only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from kernels.philox import STREAM_LATENT
from serving.families.capability import Method, Parameter
from serving.families.latent import annealing
from serving.families.latent.annealing import PILOT_CHAINS, Annealer
from serving.families.latent.evaluator import Steps
from serving.families.latent.gaussian import DiagonalGaussian
from serving.families.latent.lanes import Lanes
from serving.families.latent.observation import ObservationModel
from serving.families.latent.posterior_target import LEAPS, PosteriorTarget
from serving.families.latent.refinement import (
    OBSERVED,
    PRECISION,
    Budget,
    Estimate,
    log_mean_exp,
    mean,
    refine,
)
from serving.families.latent.run import Run
from serving.families.latent.vae_model import Proposal, VaeModel, proposal_rows
from serving.families.request import Request
from serving.families.result import LikelihoodKind, Result, Scored

# Of the encoder's standard deviations: a base that is too narrow misses mass, a wide one costs little.
WIDENING = 2.0
SAMPLES = Parameter("importance_samples", "int", 64, 1, 100_000)
CHAINS = Parameter("importance_samples", "int", 16, 1, 10_000)
TEMPERATURES = Parameter("steps", "int", 100, 1, 100_000)
MORE_TEMPERATURES = Parameter("steps", "int", 400, 1, 100_000)  # the prior is further away

ELBO = Method(
    "elbo",
    "LOWER_BOUND",
    (SAMPLES, *PRECISION, OBSERVED),
    is_default=True,
    reference="Kingma and Welling 2014, eq. 10",
)
IWAE = Method(
    "iwae", "STOCHASTIC_LOWER_BOUND", (SAMPLES, *PRECISION, OBSERVED), reference="Burda et al. 2016, eq. 8"
)
AIS = Method(
    "ais",
    "STOCHASTIC_LOWER_BOUND",
    (TEMPERATURES, CHAINS, *PRECISION, OBSERVED),
    reference="Neal 2001; from the encoder's posterior, Wu et al. 2017",
)
AIS_PRIOR = Method(
    "ais_prior",
    "STOCHASTIC_LOWER_BOUND",
    (MORE_TEMPERATURES, CHAINS, *PRECISION, OBSERVED),
    reference="Neal 2001; from the prior, without the encoder, Wu et al. 2017",
)
METHODS = (ELBO, IWAE, AIS, AIS_PRIOR)


def likelihood(run: Run, observation: ObservationModel) -> Steps[Result]:
    """The program of a Likelihood request."""
    model = VaeModel(run, observation)
    method = {"elbo": _elbo, "iwae": _iwae}.get(run.request.method, _ais)
    return (yield from method(model))


def _elbo(model: VaeModel) -> Steps[Scored]:
    """E_q ln p(x | z) - KL(q || p): the first term by draws, the second in closed form."""
    proposal = yield from model.proposal()
    divergence = proposal.posterior.kl_to_prior().cpu().numpy()

    def draw(lanes: Lanes) -> Steps[torch.Tensor]:
        z = proposal.posterior.of(lanes.owner).transport(lanes.normal(STREAM_LATENT, 0, model.dims))
        return (yield from model.decoder.log_likelihood(z, lanes, proposal.x, proposal.observed))

    def answer(estimate: Estimate) -> Scored:
        total = Estimate(estimate.value - divergence, estimate.standard_error, estimate.ess)
        terms = {"reconstruction": estimate.value.copy(), "kl": -divergence}
        return scored(model, total, LikelihoodKind.LOWER_BOUND, terms)

    return (yield from refine(model.run, _budget(model.run.request), draw, mean, answer))


def _iwae(model: VaeModel) -> Steps[Scored]:
    """ln 1/K sum p(x | z) p(z) / q(z | x)."""
    proposal = yield from model.proposal()
    answer = _stochastic(model)
    budget = _budget(model.run.request)
    return (yield from refine(model.run, budget, proposal.log_weights, log_mean_exp, answer))


def _ais(model: VaeModel) -> Steps[Scored]:
    """Weights of annealed chains, from the encoder's posterior or from the prior."""
    run = model.run
    base = DiagonalGaussian.prior(run.rows, model.dims, run.device)
    if run.request.method == "ais":
        proposal: Proposal = yield from model.proposal()
        base = proposal.posterior.widened(WIDENING)
    target = PosteriorTarget(model.decoder, base, run.x(), run.observed)
    annealer = yield from Annealer.tuned(run, target, run.integer("steps"))

    def draw(lanes: Lanes) -> Steps[torch.Tensor]:
        return (yield from annealer.run(lanes)).log_weight

    budget = _budget(run.request, model.decoder.differentiable)
    return (yield from refine(run, budget, draw, log_mean_exp, _stochastic(model)))


def _stochastic(model: VaeModel) -> Callable[[Estimate], Scored]:
    return lambda estimate: scored(model, estimate, LikelihoodKind.STOCHASTIC_LOWER_BOUND, {})


def scored(model: VaeModel, estimate: Estimate, kind: LikelihoodKind, terms: dict[str, np.ndarray]) -> Scored:
    """A reply; the observation model's log-probabilities already are in data space."""
    weighted = bool(np.isfinite(estimate.ess).any())
    return Scored(
        log_prob=estimate.value.copy(),
        scored_dims=model.run.scored_dims,
        kind=kind,
        target="model",
        base_measure=model.observation.base_measure,
        standard_error=estimate.standard_error.copy(),
        effective_sample_size=estimate.ess.copy() if weighted else None,
        network_evaluations=model.run.networks.evaluations.copy(),
        terms=terms,
        parameters=model.run.parameters,
    )


def _per_draw(request: Request, differentiable: bool) -> int:
    """Evaluations of the decoder (and of its product, as many) that one draw takes."""
    if not request.method.startswith("ais"):
        return 1
    return annealing.evaluations(_steps(request), LEAPS if differentiable else 1, 1)


def _steps(request: Request) -> int:
    return int(request.parameters["steps"])  # type: ignore[arg-type]


def _budget(request: Request, differentiable: bool = False) -> Budget:
    per_draw = _per_draw(request, differentiable) * (2 if differentiable else 1)
    before = sum(proposal_rows(request).values()) if request.method != "ais_prior" else 0
    pilot = PILOT_CHAINS * per_draw if request.method.startswith("ais") else 0
    return Budget.of(request, before + pilot, per_draw)


def likelihood_rows(request: Request, differentiable: bool) -> dict[str, int]:
    """Upper bound of network rows by component."""
    annealed = request.method.startswith("ais")
    differentiable = differentiable and annealed
    draws = _budget(request, differentiable).most + (PILOT_CHAINS if annealed else 0)
    decoder = draws * _per_draw(request, differentiable)
    rows = {"decoder": decoder} | ({"decoder_vjp": decoder} if differentiable else {})
    if request.method != "ais_prior":
        before = proposal_rows(request)
        rows = {**rows, "encoder": before["encoder"], "decoder": decoder + before["decoder"]}
    return {name: count * request.rows for name, count in rows.items()}
