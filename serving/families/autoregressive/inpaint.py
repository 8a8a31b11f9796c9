"""Inpaint: draw x_missing given x_observed, also where observed symbols follow missing ones."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.philox import STREAM_TOKEN
from serving.errors import invalid
from serving.families.autoregressive.enumeration import MOST, Table, enumerate_row, values
from serving.families.autoregressive.masks import Partial
from serving.families.autoregressive.noise import choose, uniforms
from serving.families.autoregressive.particles import Filters, Plan, pick, run_filters
from serving.families.autoregressive.scoring import Floats
from serving.families.autoregressive.symbols import Alphabet, Ids
from serving.families.autoregressive.tails import continued
from serving.families.entropy import entropy_of_draws
from serving.families.request import Array, Request
from serving.families.result import Completed, CompletionKind
from serving.families.rows import Program, Tensors, Yield
from serving.families.units import log_mean_exp


@dataclass(frozen=True)
class Moments:
    """Mean, variance and entropy (nats) of every symbol under the completions' law, [rows, length]."""

    mean: Floats
    variance: Floats
    entropy: NDArray[np.float32]

    @classmethod
    def of(cls, symbols: Ids, weights: Floats) -> Moments:
        """``symbols`` [rows, values, length], ``weights`` [rows, values] that sum to 1."""
        mean = np.einsum("rv,rvl->rl", weights, symbols)
        variance = np.einsum("rv,rvl->rl", weights, np.square(symbols - mean[:, None]))
        return cls(mean, variance, entropy_of_draws(symbols, weights))

    @classmethod
    def joined(cls, parts: list[Moments]) -> Moments:
        """Of rows that were looked at one by one."""
        names = ("mean", "variance", "entropy")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def wants_maps(request: Request) -> bool:
    """Whether the law of every symbol is asked for, which takes every particle to its end."""
    return bool(request.parameters.get("moments") or request.parameters.get("entropy"))


def by_particles(alphabet: Alphabet, request: Request, limit: int | None) -> Program:
    """Each completion from a filter of its own, so completions are independent and do not depend on n."""
    partial = Partial.of(alphabet, request)
    particles = request.parameters.get("particles", 64)
    assert isinstance(particles, int)
    filters = yield from run_filters(alphabet, request, partial, Plan(request.completions, particles))
    chosen = pick(request, partial, filters)
    symbols, moments = yield from _finished(alphabet, request, partial, filters, chosen, limit)
    evidence = log_mean_exp(filters.log_evidence).value
    gaps = bool(partial.inner.any())
    return _completed(
        alphabet,
        request,
        symbols,
        CompletionKind.CONSISTENT if gaps else CompletionKind.EXACT,
        effective_sample_size=filters.least_ess.mean(axis=1) if gaps else None,
        log_evidence=evidence,
        moments=moments,
    )


def _finished(
    alphabet: Alphabet, request: Request, partial: Partial, filters: Filters, chosen: Ids, limit: int | None
) -> Generator[Yield, Tensors, tuple[Ids, Moments | None]]:
    """The chosen particles [rows, n, length], continued past the last observed symbol; all, for moments."""
    rows, n, particles, length = filters.symbols.shape
    if not wants_maps(request):
        place = (np.arange(rows)[:, None], np.arange(n), chosen)
        symbols = yield from continued(
            alphabet, request, partial, filters.symbols[place], filters.index[place], limit
        )
        return symbols, None
    flat = filters.symbols.reshape(rows, n * particles, length)
    every = yield from continued(alphabet, request, partial, flat, filters.index.reshape(rows, -1), limit)
    number = np.arange(n) * particles + chosen
    return every[np.arange(rows)[:, None], number], Moments.of(every, _weights(filters))


def _weights(filters: Filters) -> Floats:
    """Of all particles of a row, [rows, filters * particles], summing to 1."""
    inside = filters.log_weight - log_mean_exp(filters.log_weight).value[..., None]
    log_weight = (inside + filters.log_evidence[..., None]).reshape(len(filters.symbols), -1)
    weights = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def left_to_right(alphabet: Alphabet, request: Request, limit: int | None) -> Program:
    """Draw each unknown from p(x_i | x_<i) and ignore what is known after it: not the conditional law."""
    partial = Partial.of(alphabet, request)
    filters = yield from run_filters(alphabet, request, partial, Plan(request.completions, 1))
    symbols = yield from continued(
        alphabet, request, partial, filters.symbols[:, :, 0], filters.index[:, :, 0], limit
    )
    return _completed(alphabet, request, symbols, CompletionKind.APPROXIMATE)


def by_enumeration(alphabet: Alphabet, request: Request) -> Program:
    """Score every completion and draw from the exact posterior."""
    partial = Partial.of(alphabet, request)
    if (values(alphabet, partial.missing) > MOST).any():
        raise invalid("parameters.method", f"missing symbols have over {MOST} joint values; use method smc")
    return _enumerated(alphabet, request, partial)


def _enumerated(alphabet: Alphabet, request: Request, partial: Partial) -> Program:
    drawn, evidence, moments = [], [], []
    for row in range(request.rows):
        unknown, until = partial.missing[row], int(partial.counts[row])
        table = yield from enumerate_row(alphabet, partial, row, unknown, until)
        drawn.append(_draw(request, table, row))
        evidence.append(table.log_evidence)
        law = np.exp(table.log_joint - table.log_evidence)
        if wants_maps(request):
            moments.append(Moments.of(table.symbols[None], law[None]))
    return _completed(
        alphabet,
        request,
        np.stack(drawn),
        CompletionKind.EXACT,
        log_evidence=np.array(evidence),
        moments=Moments.joined(moments) if wants_maps(request) else None,
    )


def _draw(request: Request, table: Table, row: int) -> Ids:
    """[n, length] completions of one row."""
    n = request.completions
    uniform = uniforms(request, np.full(n, row), np.zeros(n, np.int64), STREAM_TOKEN, np.arange(n))
    return table.symbols[choose(np.broadcast_to(table.log_joint, (n, len(table.log_joint))), uniform)]


def _completed(
    alphabet: Alphabet,
    request: Request,
    symbols: Ids,
    kind: CompletionKind,
    *,
    effective_sample_size: Floats | None = None,
    log_evidence: Floats | None = None,
    moments: Moments | None = None,
) -> Completed:
    assert request.data is not None
    found = request.parameters
    return Completed(
        composed(request, symbols),
        kind,
        effective_sample_size,
        log_evidence,
        _shaped(request.data, moments.mean) if moments and found.get("moments") else None,
        _shaped(request.data, moments.variance) if moments and found.get("moments") else None,
        request.lengths,
        dict(request.parameters),
        _shaped(request.data, moments.entropy) if moments and found.get("entropy") else None,
    )


def composed(request: Request, symbols: Ids) -> Array:
    """[rows, n, *shape]: the caller's own bytes where observed, ``symbols`` [rows, n, length] elsewhere."""
    assert request.data is not None
    data = request.data
    width = data.reshape(len(data), -1).shape[1]
    drawn = symbols[:, :, :width].astype(data.dtype).reshape(len(data), -1, *data.shape[1:])
    if request.observed is None:
        return np.where(True, data[:, None], drawn)
    return np.where(request.observed.reshape(data.shape)[:, None], data[:, None], drawn)


def _shaped(data: Array, values: NDArray[np.floating]) -> NDArray[np.float32]:
    width = data.reshape(len(data), -1).shape[1]
    return np.ascontiguousarray(values[:, :width], np.float32).reshape(data.shape)
