"""TorchScript: on CPU always run padded to one fixed row count, since its rows depend on their number there.

On CUDA a run takes as many rows as it is given, and can be recorded in a CUDA graph.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from export.package.schema import Component
from serving.runtime.network import Binding, Network, RuntimeOptions, Tensors

FIXED_ROWS = 8


class TorchScriptBinding(Binding):
    """Runs blocks of ``fixed`` rows (0: all at once) and copies the outputs into the buffers."""

    def __init__(
        self, module: torch.jit.ScriptModule, spec: Component, inputs: Tensors, outputs: Tensors, fixed: int
    ) -> None:
        super().__init__(inputs, outputs, next(iter(inputs.values())).shape[0])
        self._module = module
        self._order = [s.name for s in spec.inputs]
        self._names = [s.name for s in spec.outputs]
        self._fixed = fixed
        self.capturable = next(iter(inputs.values())).is_cuda

    def run(self, rows: int) -> None:
        """As many runs as the rows need."""
        size = self._fixed or rows
        if self._fixed:
            self.pad(rows, size)
        for start in range(0, rows, size):
            block = slice(start, start + size)
            with torch.inference_mode():
                answer = self._module(*(self.inputs[name][block] for name in self._order))
            values = answer if isinstance(answer, tuple) else (answer,)
            for name, value in zip(self._names, values, strict=True):
                self.outputs[name][block].copy_(value)


class TorchScriptNetwork(Network):
    """A component in TorchScript format (a traced module; frozen at load)."""

    runtime = f"torchscript {torch.__version__}"

    def __init__(self, path: Path, spec: Component, options: RuntimeOptions) -> None:
        fixed = options.fixed_rows or (FIXED_ROWS if options.device.type == "cpu" else 0)
        super().__init__(spec, RuntimeOptions(options.device, options.threads, options.max_rows, fixed))
        self._module = frozen(path, options.device)

    def _bind(self, inputs: Tensors, outputs: Tensors, capacity: int) -> Binding:
        return TorchScriptBinding(self._module, self.spec, inputs, outputs, self.options.fixed_rows)


def frozen(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    """A module of a file, its weights constants."""
    with warnings.catch_warnings():
        # TorchScript is what people have; that torch deprecates it is no news to an operator.
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
        frozen: torch.jit.ScriptModule = torch.jit.freeze(module)
        return frozen
