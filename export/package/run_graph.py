"""A component's graph as a function of named arrays, for verification; serving has runtimes of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from export.package.errors import PackageError, Reason
from export.package.operators import register_operators
from export.package.schema import Component
from export.package.verify import Arrays, Run

TORCHSCRIPT_ROWS = 8  # of a run on a CPU: what a server pads to, since rows depend on their number there


def open_graph(path: Path, component: Component, threads: int = 1) -> Run:
    """Open a graph on the CPU; raises PackageError (UNREADABLE_GRAPH) where that fails."""
    try:
        if component.format == "onnx":
            return _open_onnx(path, component, threads)
        return _open_torchscript(path, component)
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


def _open_onnx(path: Path, component: Component, threads: int) -> Run:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in component.outputs]

    def run(inputs: Arrays) -> Arrays:
        return dict(zip(names, _guarded(path, lambda: session.run(names, dict(inputs))), strict=True))

    return run


def _open_torchscript(path: Path, component: Component) -> Run:
    """Padded as servers do where the precision is low: rows of float32 differ in the last bits only."""
    import torch

    register_operators()
    module: Any = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    if component.precision != "float32":
        module = torch.jit.freeze(module)
    order = [tensor.name for tensor in component.inputs]
    names = [tensor.name for tensor in component.outputs]

    def run(inputs: Arrays) -> Arrays:
        tensors = [torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in order]
        with torch.inference_mode():
            answer = _guarded(path, lambda: module(*tensors))
        values = answer if isinstance(answer, tuple) else (answer,)
        return {name: value.numpy() for name, value in zip(names, values, strict=True)}

    by_rows = all(tensor.shape[:1] == ("rows",) for tensor in component.inputs)  # no cache
    return padded(run) if component.precision != "float32" and by_rows else run


def padded(run: Run, fixed: int = TORCHSCRIPT_ROWS) -> Run:
    """``run`` in blocks of ``fixed`` rows; what is missing at the end repeats the first row."""

    def blocks(inputs: Arrays) -> Arrays:
        rows = min(len(value) for value in inputs.values())
        spare = -rows % fixed
        filled = {n: np.concatenate([v, np.repeat(v[:1], spare, axis=0)]) for n, v in inputs.items()}
        parts = [
            run({name: value[start : start + fixed] for name, value in filled.items()})
            for start in range(0, rows, fixed)
        ]
        return {name: np.concatenate([part[name] for part in parts])[:rows] for name in parts[0]}

    return blocks


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
