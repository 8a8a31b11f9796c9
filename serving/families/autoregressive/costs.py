"""Network rows that a request takes, known before it starts: upper bounds by component."""

from __future__ import annotations

import numpy as np

from serving.families.autoregressive import enumeration, evidence, inpaint, sampling
from serving.families.autoregressive.masks import Partial
from serving.families.autoregressive.particles import Plan
from serving.families.autoregressive.symbols import Alphabet, Flags, Ids
from serving.families.request import Operation, Request

Rows = dict[str, int]


def network_rows(alphabet: Alphabet, request: Request) -> Rows:
    """Rows of ``scorer`` and, with a cache, of ``decoder``."""
    operation, rows = request.operation, request.rows
    if operation is Operation.SAMPLE:
        return _both(alphabet, 0, int(sampling.continuation(alphabet, request).steps.sum()))
    if operation is Operation.LIKELIHOOD:
        runs = _likelihood(alphabet, request)
        return _terms(alphabet, runs) if request.method == "exact" else _both(alphabet, runs, 0)
    if operation is Operation.SCORE_ANOMALY:
        return _terms(alphabet, rows)
    if operation is Operation.INPAINT:
        return _inpaint(alphabet, request)
    if operation is Operation.INTERPOLATE:
        points = request.parameters["points"]
        assert isinstance(points, int)
        return _both(alphabet, 2 * rows, rows * (points - 2) * alphabet.length)
    scored = 0 if operation is Operation.DECODE else rows
    decodes = operation in (Operation.DECODE, Operation.RECONSTRUCT) or request.parameters.get("round_trip")
    return _both(alphabet, scored, rows * alphabet.length if decodes else 0)


def _both(alphabet: Alphabet, scored: int, decoded: int) -> Rows:
    """Scoring runs and decoding steps, added where one network does both."""
    if not alphabet.cached:
        return {"scorer": scored + decoded}
    return {name: count for name, count in (("scorer", scored), ("decoder", decoded)) if count}


def _terms(alphabet: Alphabet, runs: int) -> Rows:
    """Scoring runs that need no more than the symbols' own probabilities."""
    return {"log_prob" if alphabet.scored_by_decoder else "scorer": runs}


def _likelihood(alphabet: Alphabet, request: Request) -> int:
    partial = Partial.of(alphabet, request)
    if request.method == "smc":
        plan = evidence.round_plan(request, 0)
        each = plan.evaluations(partial, alphabet.size)
        return int((each * evidence.rounds(request, each)).sum())
    return request.rows + int(_enumerated(alphabet, partial.inner)[partial.gaps > 0].sum())


def _enumerated(alphabet: Alphabet, unknown: Flags) -> Ids:
    """Values of each row that will be scored; a request with more than MOST is refused."""
    return np.minimum(enumeration.values(alphabet, unknown), enumeration.MOST).astype(np.int64)


def _inpaint(alphabet: Alphabet, request: Request) -> Rows:
    partial = Partial.of(alphabet, request)
    if request.method == "enumerate":
        return _terms(alphabet, int(_enumerated(alphabet, partial.missing).sum()))
    particles = request.parameters.get("particles", 64) if request.method == "smc" else 1
    assert isinstance(particles, int)
    plan = Plan(request.completions, particles)
    copies = request.completions * (particles if inpaint.wants_maps(request) else 1)
    tails = int((partial.counts - partial.known_end).sum())
    return _both(alphabet, int(plan.evaluations(partial, alphabet.size).sum()), tails * copies)


def depth(alphabet: Alphabet, request: Request) -> int:
    """Network runs that must follow one another, at most."""
    operation = request.operation
    if operation is Operation.SAMPLE:
        return int(sampling.continuation(alphabet, request).steps.max(initial=0))
    if operation in (Operation.LIKELIHOOD, Operation.INPAINT):
        return _masked_depth(alphabet, request)
    decodes = operation in (Operation.DECODE, Operation.RECONSTRUCT, Operation.INTERPOLATE)
    scores = 2 if operation is Operation.INTERPOLATE else 1
    return scores + (alphabet.length if decodes or request.parameters.get("round_trip") else 0)


def _masked_depth(alphabet: Alphabet, request: Request) -> int:
    if request.method in ("exact", "enumerate"):
        return 1 + (request.rows if request.observed is not None else 0)  # values are scored row by row
    partial = Partial.of(alphabet, request)
    gaps = 1 + int(partial.gaps.max(initial=0))
    if request.operation is Operation.INPAINT:
        return gaps + int((partial.counts - partial.known_end).max(initial=0))
    each = evidence.round_plan(request, 0).evaluations(partial, alphabet.size)
    return gaps * int(evidence.rounds(request, each).max(initial=1))
