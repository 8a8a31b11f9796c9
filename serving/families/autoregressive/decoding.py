"""Rows that are being decoded: one array per quantity, indexed by slot, whatever network runs them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from serving.families.autoregressive.noise import signed
from serving.families.autoregressive.stopping import (
    ANY,
    MAX_STOP_LENGTH,
    MAX_STOPS,
    Pieces,
    matched,
    stopped_text,
)
from serving.families.autoregressive.symbols import Alphabet, Flags, Ids
from serving.families.autoregressive.tokens import Drawn, Settings, inverse
from serving.families.rows import Slots, Tensors
from serving.runtime.capture import sent

Floats = NDArray[np.float64]
RUNNING, STOPPED, FULL = 0, 1, 2


@dataclass(frozen=True)
class Sampling:
    """How a request draws; the defaults are the model's own law."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    stop: Ids | None = None  # stopping.patterns


@dataclass(frozen=True)
class Continuation:
    """Payload of a decoding loop: rows with a given prefix, to be continued up to ``end`` symbols.

    ``begin``, ``given``, ``end``, ``row`` [rows] int64; ``symbols`` [rows, length] int64. With
    ``uniforms`` [rows, length], symbols are found by inverse CDF instead of drawn.
    """

    begin: Ids
    symbols: Ids
    given: Ids
    end: Ids
    row: Ids
    seed: int = 0
    sampling: Sampling = Sampling()
    uniforms: Floats | None = None

    @property
    def steps(self) -> Ids:
        """Network runs of each row, at most."""
        return self.end - self.given

    def take(self, index: Ids) -> Continuation:
        """The given rows."""
        uniforms = None if self.uniforms is None else self.uniforms[index]
        rows = (self.begin[index], self.symbols[index], self.given[index], self.end[index], self.row[index])
        return Continuation(*rows, self.seed, self.sampling, uniforms)


class DecodingRows:
    """State over ``slots`` slots; symbols and counters on the host, draws on the device."""

    def __init__(
        self, alphabet: Alphabet, slots: int, device: torch.device, pieces: Pieces | None = None
    ) -> None:
        self.alphabet = alphabet
        self.pieces = pieces  # None: symbols are the bytes of stop strings themselves
        self.settings = Settings(slots, device)
        self.begin = np.zeros(slots, np.int64)
        self.symbols = np.zeros((slots, alphabet.length), np.int64)
        self.given = np.zeros(slots, np.int64)
        self.length = np.zeros(slots, np.int64)  # symbols so far
        self.end = np.zeros(slots, np.int64)
        self.kept = np.zeros(slots, np.int64)  # symbols of the answer: without what stopped the row
        self.reason = np.zeros(slots, np.int64)
        self.stop = np.full((slots, MAX_STOPS, MAX_STOP_LENGTH), ANY, np.int64)
        self.watched = np.zeros(slots, np.bool_)  # has stop strings
        self.inverted = np.zeros(slots, np.bool_)
        self.uniforms = np.zeros((slots, alphabet.length), np.float64)
        self.log_prob = np.zeros(slots, np.float64)
        self.sampling_log_prob = np.zeros(slots, np.float64)

    def admit(self, slots: Slots, rows: Continuation) -> None:
        """Write the initial state of ``rows`` into ``slots``."""
        self.begin[slots], self.symbols[slots] = rows.begin, rows.symbols
        self.given[slots] = self.length[slots] = self.kept[slots] = rows.given
        self.end[slots] = rows.end
        self.reason[slots] = np.where(rows.given >= rows.end, FULL, RUNNING)
        self.stop[slots] = ANY if rows.sampling.stop is None else rows.sampling.stop
        self.watched[slots] = rows.sampling.stop is not None
        self.inverted[slots] = rows.uniforms is not None
        if rows.uniforms is not None:
            self.uniforms[slots] = rows.uniforms
        self.log_prob[slots] = self.sampling_log_prob[slots] = 0.0
        self._settle(slots, rows)

    def _settle(self, slots: Slots, rows: Continuation) -> None:
        settings, sampling = self.settings, rows.sampling
        device = settings.seed.device
        index = sent(torch.from_numpy(slots), device)
        settings.temperature[index] = sampling.temperature
        settings.top_k[index] = sampling.top_k
        settings.top_p[index] = sampling.top_p
        settings.min_p[index] = sampling.min_p
        settings.seed[index] = signed(rows.seed)
        settings.row[index] = sent(torch.from_numpy(rows.row), device)

    def remaining(self, slots: Slots) -> Ids:
        """Symbols each row may still take; 0: finished."""
        return np.where(self.reason[slots] == RUNNING, self.end[slots] - self.length[slots], 0)

    def advance(self, slots: Slots, logits: torch.Tensor, log_mass: torch.Tensor | None = None) -> None:
        """Append one symbol to every row, from ``logits`` [rows, vocabulary] of its next position.

        ``log_mass`` [rows]: ln sum exp of the logits, where it is known already.
        """
        self.append(slots, self._next(slots, logits, self.length[slots], log_mass))

    def append(self, slots: Slots, drawn: Drawn) -> None:
        """Append what was drawn for every row's next position."""
        position = self.length[slots]
        self.symbols[slots, position] = drawn.symbol
        self.length[slots] = position + 1
        self.log_prob[slots] += drawn.log_prob
        self.sampling_log_prob[slots] += drawn.sampling_log_prob
        self._finish(slots, drawn.symbol)

    def _next(
        self, slots: Slots, logits: torch.Tensor, position: Ids, log_mass: torch.Tensor | None
    ) -> Drawn:
        inverted = self.inverted[slots]
        if not inverted.any():
            return self.settings.draw(slots, logits, position, log_mass)
        found = inverse(logits, self.uniforms[slots, position], self.alphabet.ends)
        if inverted.all():
            return found
        drawn = self.settings.draw(slots, logits, position, log_mass)
        return Drawn(
            np.where(inverted, found.symbol, drawn.symbol),
            np.where(inverted, found.log_prob, drawn.log_prob),
            np.where(inverted, found.sampling_log_prob, drawn.sampling_log_prob),
        )

    def _finish(self, slots: Slots, symbol: Ids) -> None:
        length = self.length[slots]
        cut = self._cut(slots, symbol, length)
        self.kept[slots] = length - cut
        full = np.where(length >= self.end[slots], FULL, RUNNING)
        self.reason[slots] = np.where(cut > 0, STOPPED, full)

    def _cut(self, slots: Slots, symbol: Ids, length: Ids) -> Ids:
        """Symbols at the end that stop the row and are no part of the answer; 0: it goes on."""
        cut = np.zeros(len(slots), np.int64)
        if len(self.alphabet.ends):
            cut[np.isin(symbol, self.alphabet.ends)] = 1
        watched: Flags = self.watched[slots]
        if self.pieces is not None:
            for place in np.flatnonzero(watched).tolist():
                slot = slots[place]
                new = self.symbols[slot, self.given[slot] : length[place]].tolist()
                cut[place] = max(cut[place], stopped_text(new, self.stop[slot], self.pieces))
        elif watched.any():
            rows = slots[watched]
            back = self.length[rows][:, None] - np.arange(MAX_STOP_LENGTH, 0, -1)
            tail = np.where(back >= 0, self.symbols[rows[:, None], np.maximum(back, 0)], ANY - 1)
            found = matched(tail, self.stop[rows], length[watched] - self.given[rows])
            cut[watched] = np.maximum(cut[watched], found)
        return cut

    def result(self, slots: Slots) -> Tensors:
        """Symbols, lengths, log-probabilities, reasons of rows; copies."""
        return {
            "symbols": torch.from_numpy(self.symbols[slots]),
            "lengths": torch.from_numpy(self.kept[slots]),
            "reason": torch.from_numpy(self.reason[slots]),
            "log_prob": torch.from_numpy(self.log_prob[slots]),
            "sampling_log_prob": torch.from_numpy(self.sampling_log_prob[slots]),
        }
