"""How far a graph is from the network that it was written from."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor, nn

Array = npt.NDArray[Any]
Runner = Callable[[Mapping[str, Array]], list[Array]]


@dataclass(frozen=True)
class Difference:
    """Largest absolute error, and largest error relative to the output's largest magnitude."""

    absolute: float = 0.0
    relative: float = 0.0

    def worst(self, other: Difference) -> Difference:
        """The larger of each."""
        return Difference(max(self.absolute, other.absolute), max(self.relative, other.relative))


def onnx_runner(graph: bytes) -> Runner:
    """Run an ONNX graph on the CPU with one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda inputs: list(session.run(None, dict(inputs)))


def torchscript_runner(graph: bytes) -> Runner:
    """Run a TorchScript module on the CPU."""
    module = torch.jit.load(io.BytesIO(graph)).eval()  # type: ignore[no-untyped-call]

    def run(inputs: Mapping[str, Array]) -> list[Array]:
        with torch.no_grad():
            return _arrays(module(*(torch.from_numpy(value) for value in inputs.values())))

    return run


def compare(module: nn.Module, run: Runner, batches: Sequence[Mapping[str, Tensor]]) -> Difference:
    """The worst difference between ``module`` and a graph over several batches of inputs."""
    worst = Difference()
    for inputs in batches:
        with torch.no_grad():
            expected = _arrays(module(*inputs.values()))
        found = run({name: value.numpy() for name, value in inputs.items()})
        for reference, value in zip(expected, found, strict=True):
            worst = worst.worst(difference(reference, value))
    return worst


def difference(reference: Array, value: Array) -> Difference:
    """Of two arrays of one shape; ValueError where the shapes differ or a value is not finite."""
    if reference.shape != value.shape or not np.isfinite(value).all():
        raise ValueError(f"graph output {value.shape} is not the network's {reference.shape}, or is not finite")
    absolute = float(np.abs(reference.astype(np.float64) - value).max(initial=0.0))
    return Difference(absolute, absolute / max(float(np.abs(reference).max(initial=0.0)), 1e-30))


def _arrays(outputs: Tensor | tuple[Tensor, ...]) -> list[Array]:
    several = outputs if isinstance(outputs, tuple) else (outputs,)
    return [output.numpy() for output in several]
