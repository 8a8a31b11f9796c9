"""A selective or plain decoder graph over key/value caches, whichever runtime it is for.

The graph's inputs and outputs are those of ``export.graph.cached_decoder``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from export.package.operators import register_operators
from export.package.schema import Component
from serving.runtime.network import TORCH_DTYPES, RuntimeOptions
from serving.runtime.onnx import ELEMENT_TYPES, bound_run, run_options, session
from serving.runtime.torchscript import frozen

Buffers = Mapping[str, torch.Tensor]
Run = Callable[[], object]

ANSWERS = ("logits", "log_prob")  # of a scripted decoder, in its order
_NOWHERE: NDArray[np.int64] = np.zeros(1, np.int64)


@dataclass(frozen=True)
class CacheLayer:
    """Keys or values of one layer: [rows, kv_heads, length, head_dim]."""

    name: str
    kv_heads: int
    head_dim: int
    dtype: torch.dtype


class CachedGraph(ABC):
    """A decoder's graph, open on one device."""

    runtime: str
    alone = False  # a run needs nothing from the host but its launch

    def __init__(self, component: Component, device: torch.device) -> None:
        self.device = device
        ports = {tensor.name: tensor for tensor in (*component.inputs, *component.outputs)}
        self.selective = "wanted" in ports
        self.vocabulary = int(ports["logits"].shape[-1])
        self.logits_dtype = TORCH_DTYPES[ports["logits"].dtype]
        self.layers = [
            CacheLayer(t.name.removeprefix("past_"), int(t.shape[1]), int(t.shape[3]), TORCH_DTYPES[t.dtype])
            for t in component.inputs
            if t.name.startswith("past_")
        ]

    def caches(self, rows: int, length: int) -> dict[str, torch.Tensor]:
        """Empty caches by layer and part."""
        return {
            layer.name: torch.zeros(
                (rows, layer.kv_heads, length, layer.head_dim), dtype=layer.dtype, device=self.device
            )
            for layer in self.layers
        }

    @abstractmethod
    def bound(self, inputs: Buffers, outputs: Buffers, cache: Buffers) -> Run:
        """A run over these buffers; ``cache`` is both read and written. RuntimeError where it fails.

        ``outputs``: those that are wanted.
        """


class OnnxCachedGraph(CachedGraph):
    """In ONNX Runtime: past and present are bound to the same buffers."""

    runtime = f"onnxruntime {ort.__version__}"

    def __init__(self, path: Path, component: Component, options: RuntimeOptions) -> None:
        super().__init__(component, options.device)
        self._session = session(path, options)
        self._options = run_options(options.device)

    def bound(self, inputs: Buffers, outputs: Buffers, cache: Buffers) -> Run:
        """One IOBinding."""
        binding = self._session.io_binding()
        for name, tensor in inputs.items():
            binding.bind_input(name, *_place(tensor))
        for name, tensor in outputs.items():
            binding.bind_output(name, *_place(tensor))
        for name, tensor in cache.items():
            binding.bind_input(f"past_{name}", *_place(tensor))
            binding.bind_output(f"present_{name}", *_place(tensor))
        return bound_run(self._session, binding, self._options)


class ScriptedCachedGraph(CachedGraph):
    """In TorchScript: the module writes into the caches that it is given."""

    runtime = f"torchscript {torch.__version__}"
    alone = True

    def __init__(self, path: Path, component: Component, options: RuntimeOptions) -> None:
        super().__init__(component, options.device)
        register_operators()
        self._module = frozen(path, options.device)

    def bound(self, inputs: Buffers, outputs: Buffers, cache: Buffers) -> Run:
        """The module over these tensors; its answers are copied out."""
        given = [*inputs.values(), *cache.values()]

        def run() -> None:
            with torch.inference_mode():
                answers = self._module(*given)
                for name, answer in zip(ANSWERS, answers, strict=False):
                    if name in outputs:
                        outputs[name].copy_(answer)

        return run


def open_cached_graph(path: Path, component: Component, options: RuntimeOptions) -> CachedGraph:
    """The graph on the options' device; raises RuntimeError where the runtime refuses it."""
    kind = OnnxCachedGraph if component.format == "onnx" else ScriptedCachedGraph
    return kind(path, component, options)


def _place(tensor: torch.Tensor) -> tuple[str, int, object, tuple[int, ...], int]:
    device = (tensor.device.type, tensor.device.index or 0)
    # A buffer without elements still needs an address.
    address = tensor.data_ptr() or _NOWHERE.ctypes.data
    return *device, ELEMENT_TYPES[tensor.dtype], tuple(tensor.shape), address
