"""ONNX Runtime: inputs and outputs are bound to our buffers, so a run copies nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from export.package.schema import Component
from serving.runtime.capture import device_stream
from serving.runtime.network import Binding, Network, RuntimeOptions, Tensors

ELEMENT_TYPES = {
    torch.bool: np.bool_,
    torch.uint8: np.uint8,
    torch.int32: np.int32,
    torch.int64: np.int64,
    torch.float16: np.float16,
    torch.bfloat16: 16,  # onnx.TensorProto.BFLOAT16: numpy has no such type
    torch.float32: np.float32,
    torch.float64: np.float64,
}


def session(path: Path, options: RuntimeOptions) -> ort.InferenceSession:
    """A session on the options' device; raises RuntimeError where the runtime refuses the graph."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    # Workers spin from node to node, which is a fifth of a small network's run, but not from run to run:
    # between ticks the cores are the event loop's.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1")
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(str(path), settings, providers=providers(options.device))


def providers(device: torch.device) -> list[str | tuple[str, dict[str, str]]]:
    """The execution providers of a device; CUDA shares the stream of torch's work."""
    if device.type == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise RuntimeError("onnxruntime has no CUDA provider: install the extra 'gpu' (onnxruntime-gpu)")
    settings = {"device_id": str(device.index or 0)}
    settings["user_compute_stream"] = str(device_stream(device).cuda_stream)
    return [("CUDAExecutionProvider", settings), "CPUExecutionProvider"]


def run_options(device: torch.device) -> ort.RunOptions | None:
    """On CUDA a run only enters the stream; whoever reads its outputs waits for them there.

    None where there is nothing to say: onnxruntime looks for a graph's id in options that are given, by an
    exception where they have none, which costs 30 µs a run.
    """
    if device.type != "cuda":
        return None
    options = ort.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    options.add_run_config_entry("gpu_graph_id", "-1")  # what it is where none is given: nothing is captured
    return options


def bound_run(
    sess: ort.InferenceSession, binding: ort.IOBinding, options: ort.RunOptions | None
) -> Callable[[], object]:
    """A run of this binding; on CPU without the layer of Python around it, which asks about WebGPU first.

    That costs 10 µs with cold caches. What is below has no public name: where it has another, it stays.
    """
    inner: Any = getattr(sess, "_sess", None)
    bound = getattr(binding, "_iobinding", None)
    if options is None and hasattr(inner, "run_with_iobinding") and bound is not None:
        return partial(inner.run_with_iobinding, bound, None)
    return partial(sess.run_with_iobinding, binding, options)


class OnnxBinding(Binding):
    """One IOBinding per row count over the same buffers, made at first use."""

    def __init__(self, sess: ort.InferenceSession, inputs: Tensors, outputs: Tensors, capacity: int) -> None:
        super().__init__(inputs, outputs, capacity)
        self._session = sess
        self._calls: dict[int, Callable[[], object]] = {}
        self._options = run_options(next(iter(inputs.values())).device)

    def run(self, rows: int) -> None:
        """One session run; errors of the runtime pass through."""
        self.bound(rows)()

    def bound(self, rows: int) -> Callable[[], object]:
        """The session's run."""
        if rows not in self._calls:
            self._calls[rows] = bound_run(self._session, self._bind(rows), self._options)
        return self._calls[rows]

    def _bind(self, rows: int) -> ort.IOBinding:
        binding = self._session.io_binding()
        for name, tensor in self.inputs.items():
            binding.bind_input(name, *_place(tensor, rows))
        for name, tensor in self.outputs.items():
            binding.bind_output(name, *_place(tensor, rows))
        return binding


def _place(tensor: torch.Tensor, rows: int) -> tuple[str, int, object, tuple[int, ...], int]:
    shape = (rows, *tensor.shape[1:])
    return (
        tensor.device.type,
        tensor.device.index or 0,
        ELEMENT_TYPES[tensor.dtype],
        shape,
        tensor.data_ptr(),
    )


class PaddedOnnxBinding(OnnxBinding):
    """Always runs multiples of ``fixed`` rows, in runs of exactly that many."""

    def __init__(
        self, sess: ort.InferenceSession, inputs: Tensors, outputs: Tensors, capacity: int, fixed: int
    ) -> None:
        super().__init__(sess, inputs, outputs, capacity)
        self._fixed = fixed
        self._blocks = [
            OnnxBinding(
                sess,
                {n: t[start : start + fixed] for n, t in inputs.items()},
                {n: t[start : start + fixed] for n, t in outputs.items()},
                fixed,
            )
            for start in range(0, capacity, fixed)
        ]

    def bound(self, rows: int) -> Callable[[], object]:
        """As ``run``."""
        return partial(self.run, rows)

    def run(self, rows: int) -> None:
        """As many fixed-size runs as the rows need."""
        self.pad(rows, self._fixed)
        for block in self._blocks[: -(-rows // self._fixed)]:
            block.run(self._fixed)


class OnnxNetwork(Network):
    """A component in ONNX format."""

    runtime = f"onnxruntime {ort.__version__}"

    def __init__(self, path: Path, spec: Component, options: RuntimeOptions) -> None:
        super().__init__(spec, options)
        self._session = session(path, options)

    def _bind(self, inputs: Tensors, outputs: Tensors, capacity: int) -> Binding:
        if self.options.fixed_rows:
            return PaddedOnnxBinding(self._session, inputs, outputs, capacity, self.options.fixed_rows)
        return OnnxBinding(self._session, inputs, outputs, capacity)
