"""A decoder over key/value caches that stay in place: past and present are bound to the same buffers.

Graphs carry GroupQueryAttention (ONNX Runtime contrib operators) with a shared buffer per layer,
[slots, kv_heads, max_length, head_dim], and per-row lengths. With a past, a run of several new tokens
takes one row; a run of one new token takes any contiguous range of rows.
"""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import torch

from export.package.schema import Autoregressive, CacheLayout
from serving.runtime.network import RuntimeOptions
from serving.runtime.onnx import ELEMENT_TYPES, session

PREFILL_TOKENS = 256  # at most, in one prefill run

_DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(bfloat16)": torch.bfloat16,
}


def open_cached(
    path: Path, spec: Autoregressive, slots: int, threads: int, device: torch.device
) -> CachedDecoder:
    """Open the ``decoder`` graph of a package; ValueError where it declares no cache."""
    if spec.cache is None:
        raise ValueError("autoregressive: a decoder needs a cache layout")
    options = RuntimeOptions(device, threads, max_rows=slots)
    return CachedDecoder(session(path, options), spec.cache, slots, device)


KEPT_BINDINGS = 512  # of (first slot, rows); the oldest is dropped


class CachedDecoder:
    """``slots`` caches of ``max_length`` tokens; buffers are allocated once.

    Answers are views of the logits buffer, valid until the next run. Raises RuntimeError where the
    runtime does; a failed run changes only positions that its rows had not filled.
    """

    def __init__(
        self, sess: ort.InferenceSession, layout: CacheLayout, slots: int, device: torch.device
    ) -> None:
        self.slots = slots
        self.max_length = layout.max_length
        self._session = sess
        self._device = device
        self._cache = _caches(sess, layout, slots, device)
        shape = sess.get_outputs()[0].shape
        dtype = _DTYPES[sess.get_outputs()[0].type]
        self._tokens = torch.zeros((slots, 1), dtype=torch.int64, device=device)
        self._chunk = torch.zeros((1, PREFILL_TOKENS), dtype=torch.int64, device=device)
        self._last = torch.zeros(slots, dtype=torch.int32, device=device)
        self._total = torch.zeros((), dtype=torch.int32)
        self._logits = torch.zeros((slots, 1, shape[2]), dtype=dtype, device=device)
        self._chunk_logits = torch.zeros((1, PREFILL_TOKENS, shape[2]), dtype=dtype, device=device)
        self._bound: dict[tuple[int, int], ort.IOBinding] = {}

    def prefill(self, slot: int, tokens: torch.Tensor, past: int) -> torch.Tensor:
        """Append ``tokens`` [new] int64 to a slot that holds ``past``; logits [vocabulary] of the last."""
        new = len(tokens)
        if new > PREFILL_TOKENS or past + new > self.max_length:
            raise ValueError(f"{new} tokens after {past}: at most {PREFILL_TOKENS}, {self.max_length} in all")
        chunk, logits = self._chunk[:, :new], self._chunk_logits[:, :new]
        chunk[0].copy_(tokens)
        self._run(self._bind(slot, chunk, logits), slot, torch.tensor([past + new - 1]))
        return logits[0, -1]

    def decode(self, first: int, tokens: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        """One token per slot from ``first`` on; ``tokens``, ``past`` [rows]; logits [rows, vocabulary]."""
        rows = len(tokens)
        self._tokens[first : first + rows, 0].copy_(tokens)
        key = (first, rows)
        window = slice(first, first + rows)
        if key not in self._bound:
            if len(self._bound) >= KEPT_BINDINGS:
                self._bound.pop(next(iter(self._bound)))
            self._bound[key] = self._bind(first, self._tokens[window], self._logits[window])
        self._run(self._bound[key], first, past)
        return self._logits[window, 0]

    def _run(self, binding: ort.IOBinding, first: int, last: torch.Tensor) -> None:
        self._last[first : first + len(last)].copy_(last)
        self._total.fill_(int(last.max()) + 1)
        self._session.run_with_iobinding(binding)

    def _bind(self, first: int, tokens: torch.Tensor, logits: torch.Tensor) -> ort.IOBinding:
        """Inputs and outputs of slots ``first .. first + rows``; the caches as both."""
        rows = len(tokens)
        binding = self._session.io_binding()
        _bind(binding.bind_input, "tokens", tokens)
        _bind(binding.bind_input, "seqlens_k", self._last[first : first + rows])
        _bind(binding.bind_input, "total_sequence_length", self._total)
        _bind(binding.bind_output, self._session.get_outputs()[0].name, logits)
        for name, buffer in self._cache.items():
            _bind(binding.bind_input, f"past_{name}", buffer[first : first + rows])
            _bind(binding.bind_output, f"present_{name}", buffer[first : first + rows])
        return binding


def _caches(
    sess: ort.InferenceSession, layout: CacheLayout, slots: int, device: torch.device
) -> dict[str, torch.Tensor]:
    types = {value.name: _DTYPES[value.type] for value in sess.get_inputs() if value.name.startswith("past_")}
    shape = (slots, layout.kv_heads, layout.max_length, layout.head_dim)
    names = [f"{part}_{layer}" for layer in range(layout.layers) for part in ("key", "value")]
    return {name: torch.zeros(shape, dtype=types[f"past_{name}"], device=device) for name in names}


def _bind(bind: object, name: str, tensor: torch.Tensor) -> None:
    assert callable(bind)
    place = (tensor.device.type, tensor.device.index or 0)
    bind(name, *place, ELEMENT_TYPES[tensor.dtype], tuple(tensor.shape), tensor.data_ptr())
