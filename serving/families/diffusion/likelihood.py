"""Likelihood: the variational bound, and the density of the probability-flow ODE."""

from __future__ import annotations

import numpy as np

from serving.errors import invalid
from serving.families.diffusion.denoiser import Denoiser
from serving.families.diffusion.flow_density import flow_density
from serving.families.diffusion.refining import Refined, refined
from serving.families.request import Request
from serving.families.result import BaseMeasure, LikelihoodKind, Scored
from serving.families.rows import Program


def likelihood(denoiser: Denoiser, request: Request) -> Program:
    """Score the data rows by the request's method."""
    if request.observed is not None and not request.observed.all():
        raise invalid(
            "observed", "a diffusion model scores whole rows; marginals have no known estimate here"
        )
    if request.method == "variational_bound":
        return variational_bound(denoiser, request)
    return flow_density(denoiser, request)


def variational_bound(denoiser: Denoiser, request: Request) -> Program:
    """Terms prior, steps and decoder; the standard error is that of the noise drawn per level."""

    def answer(found: Refined) -> Scored:
        return _scored(denoiser, request, found)

    found = yield from refined(denoiser, request, answer)
    return answer(found)


def _scored(denoiser: Denoiser, request: Request, found: Refined) -> Scored:
    terms = {name: getattr(found.bound, name).sum(axis=1) for name in ("prior", "steps", "decoder")}
    shape = (request.rows, *denoiser.shape)
    per_dimension = bool(request.parameters.get("per_dimension", False))
    return Scored(
        log_prob=np.asarray(sum(terms.values()), np.float64),
        scored_dims=np.full(request.rows, denoiser.elements, np.int64),
        kind=LikelihoodKind.STOCHASTIC_LOWER_BOUND,
        target="ancestral_sampler",
        base_measure=base_measure(denoiser),
        standard_error=found.bound.error.copy(),
        network_evaluations=int(request.parameters["steps"]) * found.draws,  # type: ignore[arg-type]
        terms=terms,
        log_prob_map=found.bound.map.reshape(shape).astype(np.float32) if per_dimension else None,
        parameters=dict(request.parameters),
    )


def base_measure(denoiser: Denoiser) -> BaseMeasure:
    """Masses of levels, or densities of real data."""
    return BaseMeasure.COUNTING if denoiser.data.levels else BaseMeasure.LEBESGUE
