"""What is known of a row, and in which order the unknown is met: in data order, as the chain rule goes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from serving.errors import invalid
from serving.families.autoregressive.scoring import Sequences
from serving.families.autoregressive.symbols import Alphabet, Flags, Ids
from serving.families.request import Request


def given_rows(alphabet: Alphabet, request: Request) -> tuple[Sequences, Ids]:
    """Rows of a request's data, zeros beyond each row's end, and their lengths [rows]."""
    assert request.data is not None
    symbols = alphabet.flat(request.data)
    if symbols.shape[1] > alphabet.length:
        raise invalid("data", f"at most {alphabet.length} symbols a row")
    counts = alphabet.counts(request.rows, symbols.shape[1], request.lengths)
    whole = alphabet.padded(symbols)
    whole[np.arange(alphabet.length) >= counts[:, None]] = 0
    return Sequences(alphabet.begin(request), whole), counts


@dataclass(frozen=True)
class Partial:
    """Rows of which some symbols are known; what is unknown holds 0.

    ``observed`` [rows, length]; ``counts`` [rows] symbols of each row; ``row`` [rows] its index within
    the request, which names its noise.
    """

    sequences: Sequences
    observed: Flags
    counts: Ids
    row: Ids

    def __len__(self) -> int:
        return len(self.counts)

    @classmethod
    def of(cls, alphabet: Alphabet, request: Request) -> Partial:
        """The rows of a request under its mask (none: all is known)."""
        sequences, counts = given_rows(alphabet, request)
        observed = np.asarray(np.arange(alphabet.length) < counts[:, None])
        if request.observed is not None:
            flags = request.observed.reshape(request.rows, -1)
            observed[:, : flags.shape[1]] &= flags
        symbols = np.where(observed, sequences.symbols, 0)
        return cls(Sequences(sequences.begin, symbols), observed, counts, np.arange(request.rows))

    def take(self, index: Ids) -> Partial:
        """The given rows."""
        rows = (self.observed[index], self.counts[index], self.row[index])
        return Partial(self.sequences.take(index), *rows)

    @cached_property
    def known_end(self) -> Ids:
        """One past the last observed symbol of each row; 0: none."""
        length = self.observed.shape[1]
        last = length - np.argmax(self.observed[:, ::-1], axis=1)
        return np.where(self.observed.any(axis=1), last, 0)

    @cached_property
    def missing(self) -> Flags:
        """[rows, length] unknown symbols."""
        return np.asarray((np.arange(self.observed.shape[1]) < self.counts[:, None]) & ~self.observed)

    @cached_property
    def inner(self) -> Flags:
        """[rows, length] unknown symbols that a later observed one depends on."""
        return np.asarray(self.missing & (np.arange(self.observed.shape[1]) < self.known_end[:, None]))

    @cached_property
    def gaps(self) -> Ids:
        """Inner unknowns of each row [rows]."""
        return np.asarray(self.inner.sum(axis=1))

    @cached_property
    def borders(self) -> Ids:
        """Positions of the inner unknowns in order, then the known end: [rows, most gaps + 1]."""
        most = int(self.gaps.max(initial=0)) + 1
        order = np.argsort(~self.inner, axis=1, kind="stable")
        order = np.pad(order, ((0, 0), (0, 1)))[:, :most]
        return np.asarray(np.where(np.arange(most) < self.gaps[:, None], order, self.known_end[:, None]))

    def known_before(self, event: int) -> Flags:
        """[rows, length] observed symbols between border ``event - 1`` and border ``event``."""
        place = np.arange(self.observed.shape[1])
        start = self.borders[:, event - 1] if event else np.full(len(self), -1)
        inside = (place > start[:, None]) & (place < self.borders[:, event][:, None])
        return np.asarray(self.observed & inside)
