"""Anomaly scores from the likelihood of a row, against the likelihoods of calibration rows.

A low likelihood alone is a trap: rows that are likelier than the data ever are would pass as normal.
Typicality is two-sided (Nalisnick et al. 2019). Where lengths vary, log-probabilities are per symbol.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from serving.errors import FailedPrecondition
from serving.families.autoregressive.likelihood import symbol_map
from serving.families.autoregressive.masks import given_rows
from serving.families.autoregressive.scoring import Floats, conditionals
from serving.families.autoregressive.symbols import Alphabet, row_sums
from serving.families.calibration import Calibration
from serving.families.request import Request
from serving.families.result import Anomalies
from serving.families.rows import Program, Tensors, Yield

TYPICALITY = "typicality"
SURPRISAL = "surprisal"
TWO_SIDED = frozenset({TYPICALITY})


def statistics(alphabet: Alphabet, request: Request) -> Program:
    """Raw statistics as ``score``, for calibration: nats of surprisal, -log p(x)."""
    statistic, surprisal = yield from _surprisal(alphabet, request)
    return Anomalies(statistic, score_map=_map(request, surprisal), parameters=dict(request.parameters))


def score(alphabet: Alphabet, request: Request, calibration: Calibration | None) -> Program:
    """Scores and conformal p-values; NOT_CALIBRATED at once where there is nothing to compare with."""
    if calibration is None:
        raise FailedPrecondition(
            "no calibration file; make one with `pxserve-server calibrate`", reason="NOT_CALIBRATED"
        )
    return _score(alphabet, request, calibration, calibration.size(request.method))


def _score(alphabet: Alphabet, request: Request, calibration: Calibration, size: int) -> Program:
    statistic, surprisal = yield from _surprisal(alphabet, request)
    strangeness, p_value = calibration.score(request.method, statistic)
    parameters = dict(request.parameters)
    return Anomalies(strangeness, p_value, size, calibration.digest, _map(request, surprisal), parameters)


def _surprisal(alphabet: Alphabet, request: Request) -> Generator[Yield, Tensors, tuple[Floats, Floats]]:
    """-log p of each row [rows], per symbol where lengths vary, and of each symbol [rows, length]."""
    sequences, counts = given_rows(alphabet, request)
    inside = np.asarray(np.arange(alphabet.length) < counts[:, None])
    found = yield from conditionals(alphabet, sequences, inside)
    whole = -row_sums(found.log_prob)
    return whole / np.maximum(counts, 1) if alphabet.variable else whole, -found.log_prob


def _map(request: Request, surprisal: Floats) -> np.ndarray | None:
    if not request.parameters.get("score_map") or request.data is None:
        return None
    return symbol_map(request.data, surprisal)
