"""Likelihood: the chain rule, log p(x) = sum of log p(x_i | x_<i), in one network row per data row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serving.families.autoregressive.scoring import Floats, Sequences, conditionals
from serving.families.autoregressive.symbols import Alphabet, Flags, Ids, row_sums
from serving.families.request import Array, Request
from serving.families.result import BaseMeasure, LikelihoodKind, Scored
from serving.families.rows import Program


def given_rows(alphabet: Alphabet, request: Request) -> tuple[Sequences, Ids]:
    """Rows of a request's data, zeros beyond each row's end, and their lengths [rows]."""
    assert request.data is not None
    symbols = alphabet.flat(request.data)
    counts = alphabet.counts(request.rows, symbols.shape[1], request.lengths)
    whole = alphabet.padded(symbols)
    whole[np.arange(alphabet.length) >= counts[:, None]] = 0
    return Sequences(alphabet.begin(request), whole), counts


def within(alphabet: Alphabet, counts: Ids) -> Flags:
    """[rows, length] true up to each row's end."""
    return np.asarray(np.arange(alphabet.length) < counts[:, None])


def exact(alphabet: Alphabet, request: Request) -> Program:
    """log p of whole rows, and its terms per symbol where asked for."""
    sequences, counts = given_rows(alphabet, request)
    found = yield from conditionals(alphabet, sequences, within(alphabet, counts))
    return Scored(
        row_sums(found.log_prob),
        counts,
        LikelihoodKind.EXACT,
        target="model",
        base_measure=BaseMeasure.COUNTING,
        network_evaluations=np.ones(request.rows, np.int64),
        log_prob_map=per_symbol(alphabet, request, found.log_prob),
        parameters=dict(request.parameters),
    )


def per_symbol(alphabet: Alphabet, request: Request, log_prob: Floats) -> NDArray[np.float32] | None:
    """[rows, *shape] float32 where the request asks for it."""
    if not request.parameters.get("per_dimension") or request.data is None:
        return None
    return symbol_map(alphabet, request.data, log_prob)


def symbol_map(alphabet: Alphabet, data: Array, values: Floats) -> NDArray[np.float32]:
    """[rows, length] as the rows of ``data`` are shaped, float32."""
    width = data.reshape(len(data), -1).shape[1]
    return np.ascontiguousarray(values[:, :width], np.float32).reshape(data.shape)
