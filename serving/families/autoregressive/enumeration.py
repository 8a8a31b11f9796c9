"""Exact answers where the unknown symbols of a row have few joint values: score every one of them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from serving.families.autoregressive.masks import Partial
from serving.families.autoregressive.scoring import Floats, Sequences, conditionals
from serving.families.autoregressive.symbols import Alphabet, Flags, Ids, row_sums
from serving.families.rows import Tensors, Yield
from serving.families.units import log_mean_exp

MOST = 4096  # joint values of a row


@dataclass(frozen=True)
class Table:
    """Every completion of one row: ``symbols`` [values, length], ``log_joint`` [values] nats."""

    symbols: Ids
    log_joint: Floats

    @property
    def log_evidence(self) -> float:
        """log of the sum."""
        return float(log_mean_exp(self.log_joint).value + np.log(len(self.log_joint)))


def choices(alphabet: Alphabet) -> Ids:
    """Symbols that an unknown may be: all but end symbols, since the row goes on."""
    ids = np.arange(alphabet.size, dtype=np.int64)
    return np.setdiff1d(ids, alphabet.ends)


def values(alphabet: Alphabet, unknown: Flags) -> Floats:
    """Joint values of each row's unknowns [rows]; float64, since it soon outgrows integers."""
    return np.asarray(float(len(choices(alphabet))) ** unknown.sum(axis=1))


def enumerate_row(
    alphabet: Alphabet, partial: Partial, row: int, unknown: Flags, until: int
) -> Generator[Yield, Tensors, Table]:
    """All values of one row at ``unknown`` [length]; joint log-probability of symbols before ``until``."""
    places, ids = np.flatnonzero(unknown), choices(alphabet)
    total = len(ids) ** len(places)
    symbols = np.repeat(partial.sequences.symbols[row : row + 1], total, axis=0)
    for order, place in enumerate(places[::-1]):
        symbols[:, place] = ids[(np.arange(total) // len(ids) ** order) % len(ids)]
    scored = np.broadcast_to(np.arange(symbols.shape[1]) < until, symbols.shape)
    begin = np.repeat(partial.sequences.begin[row : row + 1], total)
    found = yield from conditionals(alphabet, Sequences(begin, symbols), scored)
    return Table(symbols, row_sums(found.log_prob))
