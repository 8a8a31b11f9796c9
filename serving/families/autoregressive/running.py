"""Decoding that the device does by itself: the last token of every slot stays there, and so does its place.

A step is the network's run over a range of slots and one kernel that draws (kernels/token_sampling.py); on
CUDA both are one graph. What was drawn is read later, while the next step runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from kernels.token_sampling import sample_tokens
from serving.families.autoregressive.symbols import Ids
from serving.families.autoregressive.tokens import Drawn, Settings
from serving.families.rows import Slots
from serving.runtime.capture import Work, captured, fetched, sent


class Buffers(Protocol):
    """A range of slots, decoded together (serving.runtime.cached.Window)."""

    tokens: torch.Tensor
    past: torch.Tensor
    logits: torch.Tensor
    run: Work

    @property
    def log_mass(self) -> torch.Tensor:
        """ln sum exp of the logits [rows]."""


@runtime_checkable
class Windowed(Protocol):
    """A decoder whose runs may need nothing from the host."""

    slots: int
    max_length: int

    @property
    def goes_alone(self) -> bool:
        """Whether they do."""

    def window(self, first: int, rows: int) -> Buffers:
        """Buffers of neighbouring slots."""


class Running:
    """``token`` and ``past`` int64 [slots] on the device; ``left`` [slots]: steps that may yet be started."""

    def __init__(self, decoder: Windowed, settings: Settings, slots: int, device: torch.device) -> None:
        self._decoder, self._settings, self._device = decoder, settings, device
        self._slots, self._last = slots, decoder.max_length - 1
        self._token = torch.zeros(slots, dtype=torch.int64, device=device)
        self._past = torch.zeros(slots, dtype=torch.int64, device=device)
        self._active = torch.zeros(slots, dtype=torch.bool, device=device)
        self._symbol = torch.zeros(slots, dtype=torch.int64, device=device)
        self._log_prob = torch.zeros((2, slots), dtype=torch.float32, device=device)  # raw, processed
        self._block = slots  # runs stay within so many neighbours
        self._seated: Slots = np.empty(0, np.int64)
        self._steps: dict[tuple[int, int], Work] = {}
        self.left = np.zeros(slots, np.int64)

    def admit(self, slots: Slots, token: Ids, past: Ids, steps: Ids) -> None:
        """Rows that come: their unread token, how many are read, how many steps they may take."""
        self.left[slots] = steps
        self._write(slots, token, past)

    def catch_up(self, slots: Slots, token: Ids, past: Ids) -> None:
        """Rows that the host took a step with."""
        self.left[slots] -= 1
        self._write(slots, token, past)

    def _write(self, slots: Slots, token: Ids, past: Ids) -> None:
        index, new, read = sent(torch.from_numpy(np.stack([slots, token, past])), self._device)
        self._token.index_copy_(0, index, new)
        self._past.index_copy_(0, index, read)

    def prepare(self, max_rows: int) -> None:
        """Record every size at the first slots."""
        self._block, size = max_rows, 1
        while size < min(max_rows, self._slots):
            self._step(0, size)
            size *= 2
        self._step(0, min(max_rows, self._slots))

    def start(self, slots: Slots) -> Callable[[], Drawn]:
        """One step of these rows; how to wait for what it drew."""
        first = int(slots[0]) // self._block * self._block
        size = 1 << (int(slots[-1]) - first).bit_length()
        step = self._step(first, min(size, self._block, self._slots - first))
        if not np.array_equal(slots, self._seated):
            active = np.zeros(self._slots, np.bool_)
            active[slots] = True
            self._active.copy_(sent(torch.from_numpy(active), self._device))
            self._seated = slots
        step()
        self.left[slots] -= 1
        return self._later(slots)

    def _later(self, slots: Slots) -> Callable[[], Drawn]:
        symbol, wait = fetched(self._symbol)
        log_prob, wait_too = fetched(self._log_prob)

        def read() -> Drawn:
            wait()
            wait_too()
            raw, processed = log_prob.numpy().astype(np.float64)[:, slots]
            return Drawn(symbol.numpy()[slots], raw, processed)

        return read

    def _step(self, first: int, size: int) -> Work:
        if (first, size) not in self._steps:
            self._steps[first, size] = self._recorded(first, size)
        return self._steps[first, size]

    def _recorded(self, first: int, size: int) -> Work:
        """A step of these slots; nobody is seated while it is tried out."""
        active = self._active.clone()
        self._active.zero_()
        step = captured(self._work(first, size), self._device)
        self._active.copy_(active)
        return step

    def _work(self, first: int, size: int) -> Work:
        window, part, settings = self._decoder.window(first, size), slice(first, first + size), self._settings
        token, past, active = self._token[part], self._past[part], self._active[part]
        law = (settings.temperature[part], settings.top_k[part], settings.top_p[part], settings.min_p[part])
        noise = (settings.seed[part], settings.row[part], past)

        def step() -> None:
            window.tokens.copy_(token)
            window.past.copy_(past)
            window.run()
            symbol, raw, processed = sample_tokens(window.logits, *law, *noise, log_mass=window.log_mass)
            self._symbol[part].copy_(symbol)
            self._log_prob[0, part].copy_(raw)
            self._log_prob[1, part].copy_(processed)
            token.copy_(torch.where(active, symbol, token))
            past.add_(active).clamp_(max=self._last)

        return step
