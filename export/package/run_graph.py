"""A component's graph as a function of named arrays, for verification; serving has runtimes of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from export.package.errors import PackageError, Reason
from export.package.schema import Component
from export.package.verify import Arrays, Run


def open_graph(path: Path, component: Component) -> Run:
    """Open a graph on the CPU, one thread; raises PackageError (UNREADABLE_GRAPH) where that fails."""
    try:
        return (
            _open_onnx(path, component) if component.format == "onnx" else _open_torchscript(path, component)
        )
    except ImportError as error:
        raise PackageError(
            Reason.UNREADABLE_GRAPH,
            path,
            "running it needs ONNX Runtime, which is not installed",
            "pip install 'pxserve-export[cpu]' (or [gpu])",
        ) from error
    except Exception as error:  # the runtimes raise types of their own, without a common base
        raise PackageError(
            Reason.UNREADABLE_GRAPH, path, f"the runtime refuses it: {_first_line(error)}", "Export it again"
        ) from error


def _open_onnx(path: Path, component: Component) -> Run:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in component.outputs]

    def run(inputs: Arrays) -> Arrays:
        return dict(zip(names, _guarded(path, lambda: session.run(names, dict(inputs))), strict=True))

    return run


def _open_torchscript(path: Path, component: Component) -> Run:
    import torch

    module: Any = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    order = [tensor.name for tensor in component.inputs]
    names = [tensor.name for tensor in component.outputs]

    def run(inputs: Arrays) -> Arrays:
        tensors = [torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in order]
        with torch.inference_mode():
            answer = _guarded(path, lambda: module(*tensors))
        values = answer if isinstance(answer, tuple) else (answer,)
        return {name: value.numpy() for name, value in zip(names, values, strict=True)}

    return run


def _guarded(path: Path, call: Any) -> Any:
    try:
        return call()
    except Exception as error:  # see open_graph
        raise PackageError(
            Reason.GRAPH_MISMATCH,
            path,
            f"it does not run: {_first_line(error)}",
            "Correct the shapes, or export it again",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
