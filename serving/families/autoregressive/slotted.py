"""Decoding over a key/value cache: one run per tick for all rows, prefixes in chunks of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from serving.families.autoregressive.decoding import Continuation, DecodingRows
from serving.families.autoregressive.running import Running, Windowed
from serving.families.autoregressive.stopping import Pieces
from serving.families.autoregressive.symbols import Alphabet, Flags, Ids
from serving.families.rows import Loop, RunningTable, Slots, Tensors

CHUNK = 64  # tokens of one row in one prefill run
TOGETHER = 1024  # tokens of one prefill run over several rows, padding included


class Decoder(Protocol):
    """A cached network: ``slots`` caches of ``max_length`` tokens each."""

    slots: int
    max_length: int

    def prefill(self, slot: int, tokens: torch.Tensor, past: int) -> torch.Tensor | None:
        """Append ``tokens`` [new] to a slot that holds ``past``; the last logits [vocabulary], if any."""

    def decode(self, first: int, tokens: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        """One token for each slot from ``first`` on; ``tokens``, ``past`` [rows]; logits [rows, vocabulary].

        Slot i writes at its position ``past[i]``.
        """


class Gathering(Protocol):
    """What a decoder may offer beside: many first chunks in one run, and masses of what it decodes."""

    selective: bool
    log_mass: torch.Tensor | None  # ln sum exp of the last decoded logits [rows]

    def prefill_together(self, first: int, rows: Sequence[torch.Tensor]) -> None:
        """Fill the empty caches from slot ``first`` on with ``rows``, each [its length]."""


class CachedTable(RunningTable):
    """Rows in decoding, each with its slot of the cache.

    ``running``: the device decodes by itself where it can.

    The network has read ``fed`` tokens of a slot: the begin symbol, then symbols. A row decodes when
    only its last token is unread, so the first draw needs no logits from the prefill.
    """

    component = "decoder"

    def __init__(
        self,
        alphabet: Alphabet,
        decoder: Decoder,
        capacity: int,
        device: torch.device,
        pieces: Pieces | None = None,
        *,
        running: bool = False,
    ) -> None:
        self.capacity = min(capacity, decoder.slots)
        self.rows = DecodingRows(alphabet, self.capacity, device, pieces)
        self._decoder = decoder
        selective = getattr(decoder, "selective", False)
        self._gathering = cast(Gathering, decoder) if selective else None
        self._least: int = getattr(decoder, "least_rows", 1)
        self._fed = np.zeros(self.capacity, np.int64)
        self._waiting = np.zeros(self.capacity, np.bool_)
        self._order = np.zeros(self.capacity, np.int64)
        self._admitted = 0
        self._running: Running | None = None
        if running and isinstance(decoder, Windowed) and decoder.goes_alone:
            self._running = Running(decoder, self.rows.settings, self.capacity, device)

    def admit(self, slots: Slots, loop: Loop) -> None:
        """Rows of a ``Continuation``; their caches are empty."""
        assert isinstance(loop.payload, Continuation)
        self.rows.admit(slots, loop.payload)
        self._fed[slots] = 0
        self._waiting[slots] = (self.rows.given[slots] > 0) & (self.rows.remaining(slots) > 0)
        self._order[slots] = self._admitted + np.arange(len(slots))
        self._admitted += len(slots)
        if self._running is not None:
            self._running.admit(
                slots, self._unread(slots), self.rows.given[slots], self.rows.remaining(slots)
            )

    def _unread(self, slots: Slots) -> Ids:
        """The last token of each row: its last symbol, or the begin symbol."""
        position = self.rows.length[slots]
        before = self.rows.symbols[slots, np.maximum(position - 1, 0)]
        return np.where(position == 0, self.rows.begin[slots], before)

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

    def neighbours(self, slot: int) -> Slots:
        """Waiting slots beside it whose first chunks fit into one run with its own; itself among them."""
        if self._gathering is None or self._fed[slot]:
            return np.array([slot])
        fresh = self._waiting & (self._fed == 0)
        first = last = slot
        widest = self._chunk(slot)
        while True:
            side = first - 1 if first > 0 and fresh[first - 1] else last + 1
            if side >= self.capacity or not fresh[side]:
                break
            wider = max(widest, self._chunk(side))
            if wider * (last - first + 2) > TOGETHER:
                break
            widest, first, last = wider, min(first, side), max(last, side)
        return np.arange(first, last + 1)

    def _chunk(self, slot: int) -> int:
        return min(CHUNK, int(self.rows.given[slot]))

    def prefill_together(self, slots: Slots) -> None:
        """Read one chunk of each; ``slots`` are neighbours of one of them."""
        if len(slots) == 1:
            self.prefill(int(slots[0]))
            return
        assert self._gathering is not None
        chunks = [self._chunk(slot) for slot in slots.tolist()]
        rows = [torch.from_numpy(self._tokens(s, 0, n)) for s, n in zip(slots.tolist(), chunks, strict=True)]
        self._gathering.prefill_together(int(slots[0]), rows)
        self._fed[slots] = chunks
        self._waiting[slots] = self._fed[slots] < self.rows.given[slots]

    def _tokens(self, slot: int, start: int, until: int) -> Ids:
        """Network tokens ``start .. until`` of a row: begin symbol, then symbols."""
        row = np.concatenate([self.rows.begin[slot : slot + 1], self.rows.symbols[slot]])
        return row[start:until]

    def decode(self, slots: Slots) -> NDArray[np.bool_]:
        """The next symbol of every row; true for rows whose logits are not finite (they keep their state)."""
        first, count = int(slots[0]), max(self._least, int(slots[-1] - slots[0]) + 1)
        tokens, past = np.zeros(count, np.int64), np.zeros(count, np.int64)
        # An inert slot among them writes where its own next token will go, and is overwritten then.
        held = self._fed[first : first + count]
        past[: len(held)] = np.minimum(held, self._decoder.max_length - 1)
        tokens[slots - first] = self._unread(slots)
        logits = self._decoder.decode(first, torch.from_numpy(tokens), torch.from_numpy(past))
        log_mass = self._gathering.log_mass if self._gathering is not None else None
        bad = _not_finite(logits)[slots - first]
        good = slots[~bad]
        if len(good):
            self._fed[good] += 1
            if len(good) < count:  # a copy of all logits costs as much as a pass over them
                index = torch.from_numpy(good - first).to(logits.device)
                logits, log_mass = logits[index], None if log_mass is None else log_mass[index]
            self.rows.advance(good, logits.float(), log_mass)
            if self._running is not None:
                self._running.catch_up(good, self._unread(good), self._fed[good])
        return bad

    # -- on the device alone -------------------------------------------------------------------------

    def stays(self, slots: Slots) -> bool:
        """Unless symbols are found by inverse CDF, which the host does."""
        return self._running is not None and not self.rows.inverted[slots].any()

    def prepare(self, max_rows: int) -> None:
        """Record runs of the first slots."""
        if self._running is not None:
            self._running.prepare(max_rows)

    def exhausted(self) -> Flags:
        """Rows that were started as often as they may be."""
        if self._running is None:
            return np.zeros(self.capacity, np.bool_)
        return np.equal(self._running.left, 0)

    def start(self, slots: Slots) -> Callable[[], tuple[Slots, Flags]]:
        """One step of these rows, to be taken later."""
        assert self._running is not None
        read, serial = self._running.start(slots), self._order[slots].copy()

        def take() -> tuple[Slots, Flags]:
            drawn = read()
            there = (self._order[slots] == serial) & (self.rows.remaining(slots) > 0)
            bad = ~np.isfinite(drawn.log_prob)
            good = there & ~bad
            self._fed[slots[good]] += 1
            self.rows.append(slots[good], drawn.take(good))
            return slots[there], bad[there]

        return take

    # -- results -------------------------------------------------------------------------------------

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
        self._order[slots] = -1


def _not_finite(logits: torch.Tensor) -> NDArray[np.bool_]:
    """[rows] by their extremes: NaN is the extreme of its row, too."""
    if logits.device.type != "cpu" or logits.dtype == torch.bfloat16:
        extremes = torch.stack(torch.aminmax(logits, dim=1))
        finite: NDArray[np.bool_] = torch.isfinite(extremes).all(dim=0).cpu().numpy()
        return ~finite
    values = logits.numpy()  # an order faster than torch here
    return np.asarray(~(np.isfinite(values.max(axis=1)) & np.isfinite(values.min(axis=1))))
