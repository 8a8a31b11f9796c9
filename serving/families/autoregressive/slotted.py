"""Decoding over a key/value cache: one run per tick for all rows, prefixes in chunks of their own."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from serving.families.autoregressive.decoding import Continuation, DecodingRows
from serving.families.autoregressive.symbols import Alphabet, Ids
from serving.families.rows import Loop, Slots, SlottedTable, Tensors

CHUNK = 64  # tokens of one prefill run


class Decoder(Protocol):
    """A cached network: ``slots`` caches of ``max_length`` tokens each."""

    slots: int
    max_length: int

    def prefill(self, slot: int, tokens: torch.Tensor, past: int) -> torch.Tensor:
        """Append ``tokens`` [new] to a slot that holds ``past``; the last logits [vocabulary]."""

    def decode(self, first: int, tokens: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        """One token for each slot from ``first`` on; ``tokens``, ``past`` [rows]; logits [rows, vocabulary].

        Slot i writes at its position ``past[i]``.
        """


class CachedTable(SlottedTable):
    """Rows in decoding, each with its slot of the cache.

    The network has read ``fed`` tokens of a slot: the begin symbol, then symbols. A row decodes when
    only its last token is unread, so the first draw needs no logits from the prefill.
    """

    component = "decoder"

    def __init__(self, alphabet: Alphabet, decoder: Decoder, capacity: int, device: torch.device) -> None:
        self.capacity = min(capacity, decoder.slots)
        self.rows = DecodingRows(alphabet, self.capacity, device)
        self._decoder = decoder
        self._fed = np.zeros(self.capacity, np.int64)
        self._waiting = np.zeros(self.capacity, np.bool_)
        self._order = np.zeros(self.capacity, np.int64)
        self._admitted = 0

    def admit(self, slots: Slots, loop: Loop) -> None:
        """Rows of a ``Continuation``; their caches are empty."""
        assert isinstance(loop.payload, Continuation)
        self.rows.admit(slots, loop.payload)
        self._fed[slots] = 0
        self._waiting[slots] = (self.rows.given[slots] > 0) & (self.rows.remaining(slots) > 0)
        self._order[slots] = self._admitted + np.arange(len(slots))
        self._admitted += len(slots)

    def pending_prefill(self) -> Slots:
        """Slots with unread prefix, in order of admission."""
        waiting = np.flatnonzero(self._waiting)
        return waiting[np.argsort(self._order[waiting])]

    def prefill(self, slot: int) -> bool:
        """Read one chunk of the slot's prefix; whether some is left."""
        if not self._waiting[slot]:
            return False
        past, given = int(self._fed[slot]), int(self.rows.given[slot])
        until = min(past + CHUNK, given)
        self._decoder.prefill(slot, torch.from_numpy(self._tokens(slot, past, until)), past)
        self._fed[slot] = until
        self._waiting[slot] = until < given
        return until < given

    def _tokens(self, slot: int, start: int, until: int) -> Ids:
        """Network tokens ``start .. until`` of a row: begin symbol, then symbols."""
        row = np.concatenate([self.rows.begin[slot : slot + 1], self.rows.symbols[slot]])
        return row[start:until]

    def decode(self, slots: Slots) -> NDArray[np.bool_]:
        """The next symbol of every row; true for rows whose logits are not finite (they keep their state)."""
        first, count = int(slots[0]), int(slots[-1] - slots[0]) + 1
        tokens = np.zeros(count, np.int64)
        # An inert slot between them writes where its own next token will go, and is overwritten then.
        past = np.minimum(self._fed[first : first + count], self._decoder.max_length - 1)
        position = self.rows.length[slots]
        before = self.rows.symbols[slots, np.maximum(position - 1, 0)]
        tokens[slots - first] = np.where(position == 0, self.rows.begin[slots], before)
        logits = self._decoder.decode(first, torch.from_numpy(tokens), torch.from_numpy(past))
        mine = logits[torch.from_numpy(slots - first).to(logits.device)].float()
        # One pass over the vocabulary: NaN is the extreme of its row, too.
        extremes = torch.stack(torch.aminmax(mine, dim=1))
        bad: NDArray[np.bool_] = ~torch.isfinite(extremes).all(dim=0).cpu().numpy()
        good = slots[~bad]
        if len(good):
            self._fed[good] += 1
            kept = mine if not bad.any() else mine[torch.from_numpy(np.flatnonzero(~bad)).to(mine.device)]
            self.rows.advance(good, kept)
        return bad

    def remaining(self, slots: Slots) -> NDArray[np.int64]:
        """Symbols left, at most; prefill is not counted."""
        return self.rows.remaining(slots)

    def result(self, slots: Slots) -> Tensors:
        """See ``DecodingRows.result``."""
        return self.rows.result(slots)

    def preview(self, slots: Slots) -> Tensors:
        """Symbols so far."""
        return self.rows.result(slots)

    def release(self, slots: Slots) -> None:
        """Forget the rows."""
        self._waiting[slots] = False
        self._fed[slots] = 0
