"""Likelihood: the chain rule, log p(x) = sum of log p(x_i | x_<i), in one network row per data row.

Under a mask, log p(x_observed): unknown symbols after the last observed one sum to one and drop out,
earlier ones are summed over: all their values (here, where few) or by particles (``evidence``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serving.errors import invalid
from serving.families.autoregressive.enumeration import MOST, enumerate_row, values
from serving.families.autoregressive.masks import Partial
from serving.families.autoregressive.scoring import Floats, conditionals
from serving.families.autoregressive.symbols import Alphabet, Flags, row_sums
from serving.families.request import Array, Request
from serving.families.result import BaseMeasure, LikelihoodKind, Scored
from serving.families.rows import Program


def exact(alphabet: Alphabet, request: Request) -> Program:
    """log p of the observed symbols, and its terms per symbol where asked for."""
    partial = Partial.of(alphabet, request)
    if (values(alphabet, partial.inner) > MOST).any():
        raise invalid("parameters.method", f"unknown symbols have over {MOST} joint values; use method smc")
    return _exact(alphabet, request, partial)


def _exact(alphabet: Alphabet, request: Request, partial: Partial) -> Program:
    if partial.inner.any() and request.parameters.get("per_dimension"):
        raise invalid("parameters.per_dimension", "no chain of terms where earlier symbols are unknown")
    found = yield from conditionals(alphabet, partial.sequences, _by_chain_rule(partial))
    log_prob = row_sums(found.log_prob)
    evaluations = np.ones(request.rows, np.int64)
    for row in np.flatnonzero(partial.inner.any(axis=1)).tolist():
        end = int(partial.known_end[row])
        table = yield from enumerate_row(alphabet, partial, row, partial.inner[row], end)
        log_prob[row] = table.log_evidence
        evaluations[row] += len(table.log_joint)
    return Scored(
        log_prob,
        partial.observed.sum(axis=1),
        LikelihoodKind.EXACT,
        target="model",
        base_measure=BaseMeasure.COUNTING,
        network_evaluations=evaluations,
        log_prob_map=per_symbol(request, found.log_prob),
        parameters=dict(request.parameters),
    )


def _by_chain_rule(partial: Partial) -> Flags:
    """[rows, length] symbols whose terms add up: those of rows without earlier unknowns."""
    return np.asarray(partial.observed & (partial.gaps == 0)[:, None])


def per_symbol(request: Request, log_prob: Floats) -> NDArray[np.float32] | None:
    """[rows, *shape] float32 where the request asks for it."""
    if not request.parameters.get("per_dimension") or request.data is None:
        return None
    return symbol_map(request.data, log_prob)


def symbol_map(data: Array, values: Floats) -> NDArray[np.float32]:
    """[rows, length] as the rows of ``data`` are shaped, float32."""
    width = data.reshape(len(data), -1).shape[1]
    return np.ascontiguousarray(values[:, :width], np.float32).reshape(data.shape)
