"""Rows that end with a symbol: symbol 3 ends them, so a row of given length holds none before its end."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.families.request import Operation, Request
from serving.families.result import Completed, Scored
from tests.analytic.ar.chains import Chain, chain_spec, every_row, log_prob, request

END = 3
DATA = np.array([[1, 0, 0, 2, 0], [2, 0, 1, 0, 0]], np.int32)
OBSERVED = np.array([[True, False, False, True, False], [True, False, True, True, True]])
LENGTHS = np.array([5, 4], np.int32)


def chain() -> Chain:
    return Chain(chain_spec((-1,), end_symbol=END))


def ask(operation: Operation, method: str, completions: int = 1, **parameters: object) -> Request:
    return request(
        operation,
        method,
        2,
        completions=completions,
        parameters=parameters,
        data=DATA,
        observed=OBSERVED,
        lengths=LENGTHS,
    )


def truth(row: int, scored: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Completions of a row without an end symbol at an unknown place, and log p of its first symbols."""
    length = int(LENGTHS[row])
    gaps = np.flatnonzero(~OBSERVED[row, :length])
    fills = every_row(len(gaps))
    fills = fills[(fills != END).all(1)]
    rows = np.repeat(DATA[row : row + 1, :length], len(fills), axis=0)
    rows[:, gaps] = fills
    return rows, np.array([log_prob(r[:scored]) for r in rows])


@pytest.mark.parametrize("method", ["exact", "smc"])
def test_unknown_symbols_before_a_known_one_are_no_ends(method: str) -> None:
    parameters = {"importance_samples": 8192} if method == "smc" else {}
    result = chain().ask(ask(Operation.LIKELIHOOD, method, **parameters))
    assert isinstance(result, Scored)
    for row in (0, 1):
        scored = 4  # a trailing unknown sums to one
        rows, joint = truth(row, scored)
        distinct = {tuple(r[:scored]): p for r, p in zip(rows, joint, strict=True)}
        expected = np.log(sum(np.exp(p) for p in distinct.values()))
        assert result.log_prob[row] == pytest.approx(expected, abs=1e-5 if method == "exact" else 0.02)


@pytest.mark.parametrize("method", ["smc", "enumerate"])
def test_completions_hold_no_end_and_follow_the_posterior(method: str) -> None:
    parameters = {"particles": 64} if method == "smc" else {}
    result = chain().ask(ask(Operation.INPAINT, method, 3000, **parameters))
    assert isinstance(result, Completed)
    assert result.lengths is not None
    assert result.lengths.tolist() == [5, 4]
    assert (result.data != END).all()
    assert not result.data[1, :, 4].any()
    rows, _ = truth(0, 5)
    law = np.exp(np.array([log_prob(r) for r in rows]))
    if method == "smc":  # the trailing symbol is drawn given that it is no end
        known = np.array([log_prob(r[:4]) for r in rows])
        step = np.array([np.exp(log_prob(r) - log_prob(r[:4])) for r in rows])
        total = {tuple(r[:4]): step[(rows[:, :4] == r[:4]).all(1)].sum() for r in rows}
        law = np.exp(known) * step / np.array([total[tuple(r[:4])] for r in rows])
    law /= law.sum()
    code = 4 ** np.arange(5)
    count = np.array([(result.data[0].astype(np.int64) @ code == r @ code).sum() for r in rows]) / 3000
    assert count.sum() == pytest.approx(1.0)
    assert 0.5 * np.abs(count - law).sum() < 0.05
