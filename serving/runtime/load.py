"""Opens the components of a package on a device."""

from __future__ import annotations

from pathlib import Path

from export.package.schema import Component
from serving.runtime.network import Network, RuntimeOptions


def open_network(path: Path, spec: Component, options: RuntimeOptions) -> Network:
    """The component's graph, ready to run; the runtimes are imported only where they are needed."""
    if spec.format == "onnx":
        from serving.runtime.onnx import OnnxNetwork

        return OnnxNetwork(path, spec, options)
    from serving.runtime.torchscript import TorchScriptNetwork

    return TorchScriptNetwork(path, spec, options)
