"""Conditional laws from the scorer: log p(x_i | x_<i) where asked, and whole laws at one position.

One network row per sequence gives all its conditionals. Rows are grouped by network width, which
depends on the row alone, and sent in chunks whose answers stay small.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from serving.families.autoregressive.symbols import Alphabet, Flags, Ids
from serving.families.rows import Call, Tensors, Yield

Floats = NDArray[np.float64]
CHUNK_ELEMENTS = 1 << 23  # logits of one Call (float32: 32 MiB)
CACHED_ELEMENTS = 1 << 21  # float64 logits normalised at a time (16 MiB), to stay in cache


@dataclass(frozen=True)
class Sequences:
    """Rows to evaluate. ``symbols`` [rows, length] and ``begin`` [rows], int64."""

    begin: Ids
    symbols: Ids

    def __len__(self) -> int:
        return len(self.symbols)

    def take(self, index: Ids) -> Sequences:
        """The given rows."""
        return Sequences(self.begin[index], self.symbols[index])


@dataclass(frozen=True)
class Conditionals:
    """``log_prob`` [rows, length] (0 where not asked) and ``law`` [rows, vocabulary], nats, float64.

    ``below`` [rows, length]: the probability of smaller symbols at the same place, where it was asked for.
    """

    log_prob: Floats
    below: Floats
    law: Floats


def conditionals(
    alphabet: Alphabet,
    sequences: Sequences,
    scored: Flags,
    position: Ids | None = None,
    *,
    cumulative: bool = False,
) -> Generator[Yield, Tensors, Conditionals]:
    """log p(x_i | x_<i) at ``scored`` [rows, length], and the law at ``position`` [rows] (-1: none).

    Only symbols before the last position asked for are read. ``cumulative`` asks for ``below``.
    """
    log_prob, below = np.zeros(scored.shape, np.float64), np.zeros(scored.shape, np.float64)
    law = np.zeros((len(sequences) if position is not None else 0, alphabet.size), np.float64)
    if alphabet.scored_by_decoder and position is None and not cumulative:
        yield from _terms(alphabet, sequences, scored, log_prob)
        return Conditionals(log_prob, below, law)
    for index, width in _chunks(alphabet, _needed(scored, position)):
        part = sequences.take(index)
        tokens = alphabet.network_input(part.begin, part.symbols, width)
        answer = yield Call("scorer", {"tokens": torch.from_numpy(np.ascontiguousarray(tokens))})
        logits = answer["logits"]
        log_prob[index], below[index] = _asked(logits, part.symbols, scored[index], cumulative)
        if position is not None:
            law[index] = _laws(logits, position[index])
    return Conditionals(log_prob, below, law)


def _terms(
    alphabet: Alphabet, sequences: Sequences, scored: Flags, log_prob: Floats
) -> Generator[Yield, Tensors, None]:
    """Fill ``log_prob`` where ``scored``, by the network that lets nothing but the terms out."""
    for index, width in _chunks(alphabet, _needed(scored, None), alphabet.length):
        part = sequences.take(index)
        tokens = alphabet.network_input(part.begin, part.symbols, width)
        targets = np.where(scored[index, :width], part.symbols[:, :width], -1)
        inputs = {"tokens": tokens, "targets": targets}
        answer = yield Call(
            "log_prob", {n: torch.from_numpy(np.ascontiguousarray(v)) for n, v in inputs.items()}
        )
        log_prob[index, :width] = answer["log_prob"].double().cpu().numpy()


def _needed(scored: Flags, position: Ids | None) -> Ids:
    """Predictions that each row needs: last position asked for, plus 1."""
    length = scored.shape[1]
    last = length - np.argmax(scored[:, ::-1], axis=1)
    needed = np.where(scored.any(axis=1), last, 0)
    return needed if position is None else np.maximum(needed, position + 1)


def _chunks(alphabet: Alphabet, needed: Ids, entries: int | None = None) -> Iterator[tuple[Ids, int]]:
    """Rows of one width, so many that ``entries`` for each (None: all logits) stay small."""
    widths = alphabet.width(needed)
    for width in np.unique(widths[needed > 0]):
        rows = np.flatnonzero((widths == width) & (needed > 0))
        chunk = max(1, CHUNK_ELEMENTS // (entries or int(width) * alphabet.size))
        for start in range(0, len(rows), chunk):
            yield rows[start : start + chunk], int(width)


def _asked(logits: torch.Tensor, symbols: Ids, scored: Flags, cumulative: bool) -> tuple[Floats, Floats]:
    """[rows, length] where ``scored``: log-probability of the symbol, and mass below it; float64."""
    row, place = np.nonzero(scored)
    log_prob, below = np.zeros(scored.shape, np.float64), np.zeros(scored.shape, np.float64)
    step = max(1, CACHED_ELEMENTS // logits.shape[2])
    for start in range(0, len(row), step):
        at = row[start : start + step], place[start : start + step]
        chosen = torch.from_numpy(symbols[at]).to(logits.device)[:, None]
        laws = torch.log_softmax(logits[at].double(), dim=-1)
        log_prob[at] = laws.gather(1, chosen)[:, 0].cpu().numpy()
        if cumulative:
            masses = laws.exp()
            below[at] = (masses.cumsum(dim=-1) - masses).gather(1, chosen)[:, 0].cpu().numpy()
    return log_prob, below


def _laws(logits: torch.Tensor, position: Ids) -> Floats:
    """[rows, vocabulary] log p(. | x_<position)."""
    chosen = logits[np.arange(len(position)), np.maximum(position, 0)]
    laws: Floats = torch.log_softmax(chosen.double(), dim=-1).cpu().numpy()
    return laws
