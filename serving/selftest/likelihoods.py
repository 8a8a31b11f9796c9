"""Samples against the likelihood that the same model gives them, and bounds against each other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from serving.families.request import Operation, Value
from serving.families.result import Encoded, FinishReason, LikelihoodKind, Scored
from serving.selftest.check import Finding, by_p_value, judged, not_applicable
from serving.selftest.statistics import kolmogorov_by_column, normal_cdf, normal_tail
from serving.selftest.subject import Rows, Subject

ROWS = 4
NATS = 1e-3  # per symbol: a cached decoder and a scorer round differently
ROUNDING = 1e-5  # relative, of log-probabilities that float32 networks give
RANDOMIZED = "randomized_probability_integral_transform"
SAMPLES = 16  # importance samples of the looser bound; the tighter one takes four times as many


async def likelihood_finite(subject: Subject) -> Finding:
    """The model's own samples have a likelihood."""
    method = subject.method(Operation.LIKELIHOOD)
    if method is None or not any(p.name != "surrogate_sigma" for p in method.parameters):
        return not_applicable("Likelihood is undefined for this model")
    if any(p.name == "surrogate_sigma" for p in method.parameters):
        return not_applicable("Likelihood needs a declared surrogate_sigma")
    scored = await _scored(subject, method.name, await subject.rows(ROWS))
    finite = bool(np.isfinite(scored.log_prob).all())
    return judged(finite, float(scored.bits_per_dim.mean()), "bits per dimension of the model's own samples")


async def sampling_log_prob(subject: Subject) -> Finding:
    """ln p as Sample reports it is ln p as Likelihood computes it, row by row.

    Of rows that ended on their own, Sample counts the end symbol, which is no part of the data.
    """
    sampler, exact = subject.method(Operation.SAMPLE), subject.method(Operation.LIKELIHOOD, "exact")
    if sampler is None or exact is None:
        return not_applicable("this model's samples come without log-probabilities")
    drawn = await subject.drawn(ROWS)
    if drawn.log_prob is None:
        return not_applicable("this model's samples come without log-probabilities")
    scored = await _scored(subject, exact.name, Rows(drawn.data, drawn.lengths))
    ended = np.array([reason is FinishReason.STOP for reason in drawn.finish_reasons] or [False] * ROWS)
    gap = np.abs(scored.log_prob - drawn.log_prob)[~ended] / np.maximum(scored.scored_dims, 1)[~ended]
    if ended.all():
        return not_applicable("every row ended on its own, and Sample counts the end symbol")
    detail = "largest difference of ln p by Sample and by Likelihood, nats per symbol; they are one law"
    return judged(bool(gap.max() < NATS), float(gap.max()), detail)


async def latents_of_samples(subject: Subject) -> Finding:
    """Samples through the model's own distribution functions are independent standard normals."""
    method = subject.method(Operation.ENCODE, RANDOMIZED)
    if method is None:
        return not_applicable("only autoregressive models of fixed length have exact distribution functions")
    rows = await subject.sampled(subject.affordable(method))
    encoded = await subject.about(Operation.ENCODE, method, rows)
    assert isinstance(encoded, Encoded)
    distance, p_value = kolmogorov_by_column(normal_cdf(encoded.latents.astype(np.float64)))
    detail = "distance from N(0, 1) of samples through their own conditional distribution functions"
    return by_p_value(
        p_value, distance, detail + "; a FAIL says that Sample and Likelihood follow different laws"
    )


async def bounds_ordered(subject: Subject) -> Finding:
    """ELBO <= IWAE-K <= IWAE-4K in expectation (Burda et al. 2016, theorem 1)."""
    if any(subject.method(Operation.LIKELIHOOD, name) is None for name in ("elbo", "iwae")):
        return not_applicable("this model has no two bounds of one target")
    rows = await subject.sampled()
    asked: list[tuple[str, dict[str, Value]]] = [
        ("elbo", {"importance_samples": SAMPLES}),
        ("iwae", {"importance_samples": SAMPLES}),
        ("iwae", {"importance_samples": 4 * SAMPLES}),
    ]
    found = [await _scored(subject, name, rows, more) for name, more in asked]
    return _ordered(found, "ELBO <= IWAE-16 <= IWAE-64", "no weights break this order")


async def annealed_bound(subject: Subject) -> Finding:
    """IWAE <= AIS within standard errors: annealing should be at least as tight."""
    ais = subject.method(Operation.LIKELIHOOD, "ais")
    iwae = subject.method(Operation.LIKELIHOOD, "iwae")
    if ais is None or iwae is None or not (rows := subject.affordable(ais)):
        return not_applicable("this model has no annealed bound, or it is too dear for a self-test")
    some = await subject.sampled(rows)
    found = [await _scored(subject, name, some) for name in ("iwae", "ais")]
    return _ordered(found, "IWAE <= AIS", "a FAIL says that the annealed chains are too short for this model")


def _ordered(found: list[Scored], what: str, meaning: str) -> Finding:
    """The worst z-score of a step up, rows paired."""
    worst = np.inf
    for lower, upper in pairwise(found):
        step = upper.log_prob - lower.log_prob
        rounding = ROUNDING * (1.0 + float(np.abs(lower.log_prob).mean()))
        error = max(float(step.std(ddof=1)) / np.sqrt(len(step)), rounding)
        worst = min(worst, float(step.mean()) / error)
    detail = f"{what} on the model's own samples: smallest z-score of a step; {meaning}"
    return by_p_value(normal_tail(-worst), worst, detail)


async def _scored(subject: Subject, method: str, rows: Rows, more: dict[str, Value] | None = None) -> Scored:
    found = subject.method(Operation.LIKELIHOOD, method)
    assert found is not None
    result = await subject.about(Operation.LIKELIHOOD, found, rows, more)
    assert isinstance(result, Scored)
    assert result.kind is not LikelihoodKind.SURROGATE
    return result
