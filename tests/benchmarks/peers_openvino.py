"""OpenVINO beside the runtimes of our engine, on the same U-Net of 35.7M parameters, bare runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.assemble.rounded import export_rounded
from export.package.schema import Component
from serving.runtime.allocator import keep_freed_memory
from serving.runtime.load import open_network
from serving.runtime.network import Network, RuntimeOptions
from tests.benchmarks.figures import Figure
from tests.benchmarks.gpt2 import interleaved
from tests.benchmarks.large import large_package, specification
from tests.benchmarks.networks.unet import UNet

TITLE = "The 35.7M U-Net in our runtimes against OpenVINO"
NOTE = (
    "Bare runs of the same weights over bound buffers, 2 threads, 16 rows of 32x32 (TorchScript runs "
    "blocks of 8; malloc keeps what runs free, as in our server): float32 is ONNX Runtime against OpenVINO's "
    "f32, bfloat16 our TorchScript graph against OpenVINO's bf16 hint. The largest error of each against "
    "torch in float32 is checked: 1e-3 and 8e-2 of the largest output. Medians of the ratio within "
    "interleaved rounds."
)
ROWS, THREADS = 16, 2
TOLERANCES = {"float32": 1e-3, "bfloat16": 8e-2}
HINTS = {"float32": "f32", "bfloat16": "bf16"}
FOLDER = Path("build/peers")
Floats = NDArray[np.float32]
Run = Callable[[], Floats]


def run() -> list[Figure]:
    """Seconds of theirs over ours, for each precision."""
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    if find_spec("openvino") is None:
        note = "OpenVINO is not installed here, so nothing is compared with it."
        return [Figure(TITLE, "OpenVINO: absent", float("nan"), note=note)]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, 3, 32, 32)).astype(np.float32)
    t = rng.integers(0, 1000, ROWS).astype(np.float32)
    wanted = source(x, t)
    return [figure for precision in HINTS for figure in compared(precision, x, t, wanted)]


def compared(precision: str, x: Floats, t: Floats, wanted: Floats) -> list[Figure]:
    """Our rate, and the ratio."""
    runs: Mapping[str, Run] = {"ours": ours(precision, x, t), "OpenVINO": openvino(precision, x, t)}
    for name, call in runs.items():
        error = float(np.abs(call() - wanted).max() / np.abs(wanted).max())
        assert error < TOLERANCES[precision], f"{name} in {precision} is {error:.2g} off"
    taken = interleaved(runs)
    rate = float(np.median(ROWS / taken["ours"]))
    ratio = float(np.median(taken["OpenVINO"] / taken["ours"]))
    return [
        Figure(TITLE, f"{precision}: ours", rate, unit="rows/s", note=NOTE),
        Figure(TITLE, f"{precision}: over OpenVINO", ratio, 1.0, "at least", "x", NOTE),
    ]


def network() -> UNet:
    """The weights of the benchmark's package."""
    torch.manual_seed(0)
    torch.randn(2, 3, 32, 32)  # as the package was made
    return UNet().eval().requires_grad_(False)


@torch.inference_mode()
def source(x: Floats, t: Floats) -> Floats:
    """torch in float32."""
    found: Floats = network()(torch.from_numpy(x), torch.from_numpy(t)).numpy()
    return found


def ours(precision: str, x: Floats, t: Floats) -> Run:
    """The network as the engine opens it."""
    opened = _opened(precision)
    binding = opened.binding(())
    binding.inputs["x"][:ROWS].copy_(torch.from_numpy(x))
    binding.inputs["t"][:ROWS].copy_(torch.from_numpy(t))

    def call() -> Floats:
        binding.run(ROWS)
        found: Floats = binding.outputs["prediction"][:ROWS].numpy()
        return found

    return call


def _opened(precision: str) -> Network:
    entry: Any = specification()["components"]
    options = RuntimeOptions(torch.device("cpu"), THREADS, ROWS)
    if precision == "float32":
        component = Component.model_validate(entry["denoiser"])
        return open_network(large_package() / component.file, component, options)
    file = FOLDER / "unet-35m-bfloat16.pt"
    FOLDER.mkdir(parents=True, exist_ok=True)
    example = {"x": torch.randn(5, 3, 32, 32), "t": torch.rand(5) * 999}
    file.write_bytes(export_rounded(network(), example))
    low = {**entry["denoiser"], "format": "torchscript", "file": file.name, "precision": "bfloat16"}
    return open_network(file, Component.model_validate(low), options)


def openvino(precision: str, x: Floats, t: Floats) -> Run:
    """OpenVINO's CPU plugin with the same number of threads, asked for latency."""
    library: Any = import_module("openvino")
    core = library.Core()
    settings = {
        "INFERENCE_NUM_THREADS": str(THREADS),
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = core.read_model(str(large_package() / "denoiser.onnx"))
    model.reshape({"x": [ROWS, 3, 32, 32], "t": [ROWS]})  # a fixed shape is its best case
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def call() -> Floats:
        request.infer({"x": x, "t": t})
        found: Floats = request.get_output_tensor(0).data
        return found

    return call
