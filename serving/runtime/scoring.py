"""Whole rows through a selective decoder: the graph that decodes also scores, so its weights are held once.

Rows are read from empty caches of their own: several short ones together, a long one in chunks whose borders
depend on its length alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from export.package.schema import Component, TensorSpec
from serving.runtime.cached_graph import Buffers, CachedGraph
from serving.runtime.network import Binding, Network, RuntimeOptions, Tensors

RUN_TOKENS = 256  # of one run; more only cost memory
ROWS, LENGTH = "rows", "length"


@dataclass(frozen=True)
class _Chunk:
    """Tokens ``start .. until`` of rows ``first .. end``."""

    first: int
    end: int
    start: int
    until: int


class ScoringNetwork(Network):
    """``tokens`` [rows, length] -> ``logits`` [rows, length, vocabulary] over a decoder's graph."""

    probe_rows = 4  # a run takes a few whole rows at most, and large models should start soon

    def __init__(self, graph: CachedGraph, options: RuntimeOptions) -> None:
        self._graph, self.runtime = graph, graph.runtime
        super().__init__(self._component(graph.vocabulary), options)

    def _component(self, vocabulary: int) -> Component:
        tokens = TensorSpec(name="tokens", dtype="int64", shape=(ROWS, LENGTH))
        logits = TensorSpec(name="logits", dtype="float32", shape=(ROWS, LENGTH, vocabulary))
        return Component(format="onnx", file="decoder", inputs=(tokens,), outputs=(logits,))

    def _bind(self, inputs: Tensors, outputs: Tensors, capacity: int) -> Binding:
        return LogitsBinding(self._graph, inputs, outputs, capacity)


class LogProbNetwork(ScoringNetwork):
    """``tokens``, ``targets`` [rows, length] -> ``log_prob`` [rows, length] nats; 0 at negative targets."""

    def _component(self, vocabulary: int) -> Component:
        ids = [TensorSpec(name=name, dtype="int64", shape=(ROWS, LENGTH)) for name in ("tokens", "targets")]
        log_prob = TensorSpec(name="log_prob", dtype="float32", shape=(ROWS, LENGTH))
        return Component(format="onnx", file="decoder", inputs=tuple(ids), outputs=(log_prob,))

    def _bind(self, inputs: Tensors, outputs: Tensors, capacity: int) -> Binding:
        return LogProbBinding(self._graph, inputs, outputs, capacity)


class LogitsBinding(Binding):
    """All logits of every row."""

    def __init__(self, graph: CachedGraph, inputs: Tensors, outputs: Tensors, capacity: int) -> None:
        super().__init__(inputs, outputs, capacity)
        self._graph = graph
        self._length = inputs["tokens"].shape[1]
        self._together = max(1, min(capacity, RUN_TOKENS // self._length))
        self._cache = graph.caches(self._together, self._length)

    def run(self, rows: int) -> None:
        """As many runs as it takes; errors of the runtime pass through."""
        for chunk in self._chunks(rows):
            self._run(chunk)

    def _chunks(self, rows: int) -> Iterator[_Chunk]:
        for first in range(0, rows, self._together):
            for start in range(0, self._length, RUN_TOKENS):
                end, until = min(first + self._together, rows), min(start + RUN_TOKENS, self._length)
                yield _Chunk(first, end, start, until)

    def _run(self, chunk: _Chunk) -> None:
        part = self.outputs["logits"][chunk.first : chunk.end, chunk.start : chunk.until]
        every = part.shape[0] * part.shape[1]
        wanted = torch.arange(every, device=part.device)
        # Whole rows lie one after the other, and need no copy.
        found = part.view(every, -1) if part.is_contiguous() else part.new_empty((every, part.shape[2]))
        self._predict(chunk, wanted, torch.zeros_like(wanted), {"logits": found})
        if not part.is_contiguous():
            part.copy_(found.view_as(part))

    def _predict(self, chunk: _Chunk, wanted: torch.Tensor, targets: torch.Tensor, outputs: Buffers) -> None:
        """Fill what of ``logits`` [wanted, vocabulary] and ``log_prob`` [wanted] is asked for.

        The chunk is read into the caches.
        """
        rows = chunk.end - chunk.first
        tokens = self.inputs["tokens"][chunk.first : chunk.end, chunk.start : chunk.until].contiguous()
        last = torch.full((rows,), chunk.until - 1, dtype=torch.int32, device=tokens.device)
        inputs = {
            "tokens": tokens,
            "seqlens_k": last,
            "total_sequence_length": torch.tensor(chunk.until, dtype=torch.int32),
            "wanted": wanted,
            "targets": targets,
        }
        cache = {name: buffer[:rows] for name, buffer in self._cache.items()}
        self._graph.bound(inputs, outputs, cache)()


class LogProbBinding(LogitsBinding):
    """Only the targets' log-probabilities leave the runtime."""

    def _run(self, chunk: _Chunk) -> None:
        part = (slice(chunk.first, chunk.end), slice(chunk.start, chunk.until))
        targets = self.inputs["targets"][part].reshape(-1)
        wanted = (targets >= 0).nonzero()[:, 0]
        terms = self.outputs["log_prob"].new_zeros(len(targets))
        if len(wanted):
            # A product of one row may sum in another order than one of several.
            asked = wanted.repeat(2) if len(wanted) == 1 else wanted
            found = terms.new_empty(len(asked))
            self._predict(chunk, asked, targets[asked], {"log_prob": found})
            terms[wanted] = found[: len(wanted)]
        elif chunk.until < self._length:
            # later chunks read what this one leaves in the caches
            self._predict(chunk, wanted, wanted, {"log_prob": terms[:0]})
        self.outputs["log_prob"][part] = terms.view(chunk.end - chunk.first, -1)


def scoring_networks(graph: CachedGraph, options: RuntimeOptions) -> dict[str, Network]:
    """What a selective decoder stands in for, by component."""
    return {"scorer": ScoringNetwork(graph, options), "log_prob": LogProbNetwork(graph, options)}
