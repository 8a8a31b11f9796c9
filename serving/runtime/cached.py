"""A decoder over key/value caches that stay in place: past and present are bound to the same buffers.

Graphs carry GroupQueryAttention (ONNX Runtime contrib operators) with a shared buffer per layer,
[slots, kv_heads, max_length, head_dim], and per-row lengths. A run of one new token takes any contiguous
range of rows; one of several new tokens takes one row, or rows whose caches are empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from export.package.schema import Autoregressive, CacheLayout, Component
from serving.runtime.cached_graph import CachedGraph, Run, open_cached_graph
from serving.runtime.network import RuntimeOptions

PREFILL_TOKENS = 256  # at most, in one prefill run of one row
TOGETHER_TOKENS = 1024  # at most, in one prefill run of several rows, padding included
KEPT_BINDINGS = 512  # of (first slot, rows); the oldest is dropped


def open_cached(
    path: Path, component: Component, spec: Autoregressive, slots: int, options: RuntimeOptions
) -> CachedDecoder:
    """Open the ``decoder`` graph of a package; ValueError where it declares no cache."""
    if spec.cache is None:
        raise ValueError("autoregressive: a decoder needs a cache layout")
    least = 2 if component.weights == "int4" else 1
    return CachedDecoder(open_cached_graph(path, component, options), spec.cache, slots, least)


@dataclass(frozen=True)
class Window:
    """Neighbouring slots that are decoded together, as the buffers of their runs.

    Before ``run``: ``tokens`` int64 [rows] and ``past`` int32 [rows]. After it: ``logits`` [rows, vocabulary]
    and ``log_mass`` [rows], ln sum exp of them.
    """

    tokens: torch.Tensor
    past: torch.Tensor
    logits: torch.Tensor
    log_prob: torch.Tensor
    run: Run

    @property
    def log_mass(self) -> torch.Tensor:
        """From the log-probability of token 0, which every run tells."""
        return self.logits[:, 0] - self.log_prob


class CachedDecoder:
    """``slots`` caches of ``max_length`` tokens; buffers are allocated once.

    ``least_rows`` 2: products of a single row sum in another order (4-bit weights), so that one token never
    runs alone; there is then one slot more than ``slots``, to keep the last one company.
    Answers are views of the logits buffer, valid until the next run. Raises RuntimeError where the
    runtime does; a failed run changes only positions that its rows had not filled.
    """

    def __init__(self, graph: CachedGraph, layout: CacheLayout, slots: int, least_rows: int = 1) -> None:
        self.slots = slots
        self.least_rows = least_rows
        self.max_length = layout.max_length
        self.graph = graph
        self.selective = graph.selective
        self._device = device = graph.device
        slots += least_rows - 1
        self._cache = graph.caches(slots, layout.max_length)
        self.cache_bytes = sum(buffer.nbytes for buffer in self._cache.values())
        size, dtype = graph.vocabulary, graph.logits_dtype
        self._tokens = torch.zeros((slots, 1), dtype=torch.int64, device=device)
        self._last = torch.zeros(slots, dtype=torch.int32, device=device)
        self._total = torch.zeros((), dtype=torch.int32)
        self._logits = torch.zeros((slots, size), dtype=dtype, device=device)
        self._log_prob = torch.zeros(slots, dtype=torch.float32, device=device)
        self._every = torch.arange(slots, device=device)
        self._first = torch.zeros(slots, dtype=torch.int64, device=device)
        self._bound: dict[tuple[int, int], Run] = {}
        self.log_mass: torch.Tensor | None = None  # ln sum exp of the last decoded logits [rows], if known

    def prefill(self, slot: int, tokens: torch.Tensor, past: int) -> torch.Tensor | None:
        """Append ``tokens`` [new] int64 to a slot that holds ``past``.

        Returns logits [vocabulary] of the last, or None where the graph can leave them out.
        """
        new = len(tokens)
        if new > PREFILL_TOKENS or past + new > self.max_length:
            raise ValueError(f"{new} tokens after {past}: at most {PREFILL_TOKENS}, {self.max_length} in all")
        # What pads a single token is overwritten by the next one.
        padding = max(0, self.least_rows - new)
        chunk = torch.nn.functional.pad(tokens.to(self._device, copy=True), (0, padding))[None]
        logits = self._logits.new_empty((0 if self.selective else new + padding, self._logits.shape[1]))
        self._read(slot, chunk, torch.tensor([past + new + padding - 1]), logits)
        return None if self.selective else logits[new - 1]

    def prefill_together(self, first: int, rows: Sequence[torch.Tensor]) -> None:
        """Fill the empty caches from slot ``first`` on with ``rows``, each [its length] int64.

        Only where ``selective``. What follows a shorter row's end holds padding until it is overwritten.
        """
        chunk = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        last = torch.tensor([len(row) - 1 for row in rows])
        self._read(first, chunk.to(self._device), last, self._logits[:0])

    def _read(self, first: int, chunk: torch.Tensor, last: torch.Tensor, logits: torch.Tensor) -> None:
        wanted = self._every[:0] if self.selective else None
        shown = logits if self.selective else logits.view(*chunk.shape, -1)
        self._run(self._bind(first, chunk, shown, wanted), first, last)

    def decode(self, first: int, tokens: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        """One token per slot from ``first`` on; ``tokens``, ``past`` [rows]; logits [rows, vocabulary]."""
        rows = len(tokens)
        window = slice(first, first + rows)
        self._tokens[window, 0].copy_(tokens)
        if (first, rows) not in self._bound:
            if len(self._bound) >= KEPT_BINDINGS:
                self._bound.pop(next(iter(self._bound)))
            self._bound[first, rows] = self._window_run(first, rows)
        self._run(self._bound[first, rows], first, past)
        if self.selective:
            self.log_mass = self._logits[window, 0] - self._log_prob[window]
        return self._logits[window]

    def window(self, first: int, rows: int) -> Window:
        """Slots ``first .. first + rows`` for runs that the host has no part in."""
        part = slice(first, first + rows)
        buffers = self._tokens[part, 0], self._last[part], self._logits[part], self._log_prob[part]
        return Window(*buffers, self._window_run(first, rows))

    @property
    def goes_alone(self) -> bool:
        """Whether a run needs nothing but what is in its buffers (``window``)."""
        return self.selective and self.graph.alone

    def _window_run(self, first: int, rows: int) -> Run:
        logits = self._logits[first : first + rows]
        wanted = self._every[:rows] if self.selective else None
        shown = logits if self.selective else logits[:, None]
        return self._bind(first, self._tokens[first : first + rows], shown, wanted)

    def _run(self, run: Run, first: int, last: torch.Tensor) -> None:
        self._last[first : first + len(last)].copy_(last)
        self._total.fill_(int(last.max()) + 1)
        run()

    def _bind(
        self, first: int, tokens: torch.Tensor, logits: torch.Tensor, wanted: torch.Tensor | None
    ) -> Run:
        """Inputs and outputs of slots ``first .. first + rows``; the caches as both."""
        window = slice(first, first + len(tokens))
        inputs = {"tokens": tokens, "seqlens_k": self._last[window], "total_sequence_length": self._total}
        outputs = {"logits": logits}
        if wanted is not None:
            inputs |= {"wanted": wanted, "targets": self._first[: len(wanted)]}
            outputs["log_prob"] = self._log_prob[window][: len(wanted)]
        part = {name: buffer[window] for name, buffer in self._cache.items()}
        return self.graph.bound(inputs, outputs, part)
