"""Decoding without a cache: every step runs the scorer over the whole row (PixelCNN, van den Oord 2016)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from serving.families.autoregressive.decoding import Continuation, DecodingRows
from serving.families.autoregressive.stopping import Pieces
from serving.families.autoregressive.symbols import Alphabet
from serving.families.rows import BatchedTable, Loop, Slots, Tensors


class WholeRowTable(BatchedTable):
    """Rows in decoding whose network reads all symbols at each step."""

    component = "scorer"

    def __init__(
        self,
        alphabet: Alphabet,
        capacity: int,
        device: torch.device,
        length_axis: str | None = None,
        pieces: Pieces | None = None,
    ) -> None:
        self.capacity = capacity
        self.rows = DecodingRows(alphabet, capacity, device, pieces)
        self._alphabet = alphabet
        if length_axis is not None:
            self.dims = ((length_axis, alphabet.length),)

    def admit(self, slots: Slots, loop: Loop) -> None:
        """Rows of a ``Continuation``."""
        assert isinstance(loop.payload, Continuation)
        self.rows.admit(slots, loop.payload)

    def remaining(self, slots: Slots) -> NDArray[np.int64]:
        """Symbols left, at most."""
        return self.rows.remaining(slots)

    def width(self, slots: Slots) -> NDArray[np.int64]:
        """One network row each."""
        return np.ones(len(slots), np.int64)

    def gather(self, slots: Slots, inputs: Tensors) -> None:
        """``tokens`` [rows, length]; what follows a row's last symbol is never looked at."""
        rows = self.rows
        width = inputs["tokens"].shape[1]
        tokens = self._alphabet.network_input(rows.begin[slots], rows.symbols[slots], width)
        inputs["tokens"].copy_(torch.from_numpy(tokens))

    def advance(self, slots: Slots, outputs: Tensors) -> None:
        """The next symbol of every row from ``logits`` [rows, length, vocabulary]."""
        logits = outputs["logits"]
        index = torch.arange(len(slots), device=logits.device)
        position = torch.from_numpy(self.rows.length[slots]).to(logits.device)
        self.rows.advance(slots, logits[index, position].float())

    def result(self, slots: Slots) -> Tensors:
        """See ``DecodingRows.result``."""
        return self.rows.result(slots)

    def preview(self, slots: Slots) -> Tensors:
        """Symbols so far."""
        return self.rows.result(slots)
