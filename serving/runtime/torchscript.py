"""TorchScript: always run padded to one fixed row count, since its rows depend on their number on CPU."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from export.package.schema import Component
from serving.runtime.network import Binding, Network, RuntimeOptions, Tensors

FIXED_ROWS = 16


class TorchScriptBinding(Binding):
    """Runs blocks of ``fixed`` rows and copies the outputs into the buffers."""

    def __init__(
        self, module: torch.jit.ScriptModule, spec: Component, inputs: Tensors, outputs: Tensors, fixed: int
    ) -> None:
        super().__init__(inputs, outputs, next(iter(inputs.values())).shape[0])
        self._module = module
        self._order = [s.name for s in spec.inputs]
        self._names = [s.name for s in spec.outputs]
        self._fixed = fixed

    def run(self, rows: int) -> None:
        """As many fixed-size runs as the rows need."""
        for start in range(0, rows, self._fixed):
            block = slice(start, start + self._fixed)
            with torch.inference_mode():
                answer = self._module(*(self.inputs[name][block] for name in self._order))
            values = answer if isinstance(answer, tuple) else (answer,)
            for name, value in zip(self._names, values, strict=True):
                self.outputs[name][block].copy_(value)


class TorchScriptNetwork(Network):
    """A component in TorchScript format (a traced module; frozen at load)."""

    runtime = f"torchscript {torch.__version__}"

    def __init__(self, path: Path, spec: Component, options: RuntimeOptions) -> None:
        fixed = options.fixed_rows or FIXED_ROWS
        super().__init__(spec, RuntimeOptions(options.device, options.threads, options.max_rows, fixed))
        self._module = _frozen(path, options.device)

    def _bind(self, inputs: Tensors, outputs: Tensors, capacity: int) -> Binding:
        return TorchScriptBinding(self._module, self.spec, inputs, outputs, self.options.fixed_rows)


def _frozen(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        # TorchScript is what people have; that torch deprecates it is no news to an operator.
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
        frozen: torch.jit.ScriptModule = torch.jit.freeze(module)
        return frozen
