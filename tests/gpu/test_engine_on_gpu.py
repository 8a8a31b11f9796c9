"""The engine on CUDA: steps in graphs, nothing waited for, and the answers of the CPU.

Needs the server's packages beside torch, triton and numpy; skipped where they are not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pydantic")
pytest.importorskip("onnxruntime")

from export.graph.torchscript import export_torchscript
from export.package.schema import Component
from serving.engine.batched_lane import BatchedLane
from serving.engine.device_lane import DeviceLane
from serving.engine.device_runs import DeviceRuns
from serving.engine.device_slotted_lane import DeviceSlottedLane
from serving.engine.slotted_lane import SlottedLane
from serving.families.autoregressive.running import Running
from serving.families.result import Result, Sampled
from serving.runtime.network import Network, RuntimeOptions
from serving.runtime.torchscript import TorchScriptNetwork
from tests.serving.engine import decoder_engine, gaussian_engine
from tests.serving.families.diffusion.networks import Elementwise

CUDA = torch.device("cuda:0")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")]


class Script(torch.nn.Module):
    """The closed-form network, to be traced."""

    def forward(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        network = Elementwise((gaussian_engine.ELEMENTS,))
        return network({"x": x, "t": t, "label": label})["prediction"]


@pytest.fixture
def on_cuda(tmp_path: Path) -> Iterator[gaussian_engine.Made]:
    path, x = tmp_path / "net.pt", torch.zeros(2, gaussian_engine.ELEMENTS)
    inputs = {"x": x, "t": torch.zeros(2), "label": torch.zeros(2, dtype=torch.int64)}
    path.write_bytes(export_torchscript(Script(), inputs))

    def opened(spec: Component, fault: gaussian_engine.Fault) -> Network:
        scripted = spec.model_copy(update={"format": "torchscript"})
        return TorchScriptNetwork(path, scripted, RuntimeOptions(CUDA, max_rows=8))

    it = gaussian_engine.made(DeviceLane, CUDA, opened)
    it.engine.start()
    yield it
    it.engine.stop()


@pytest.fixture
def on_cpu() -> Iterator[gaussian_engine.Made]:
    it = gaussian_engine.made(BatchedLane)
    it.engine.start()
    yield it
    it.engine.stop()


@pytest.fixture
def never_waits(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, str], None]:
    """Makes a method raise where it waits for the device."""

    def guard(kind: type, name: str) -> None:
        method = getattr(kind, name)

        def guarded(*given: object) -> object:
            torch.cuda.set_sync_debug_mode("error")
            try:
                return method(*given)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        monkeypatch.setattr(kind, name, guarded)

    return guard


def numbers(results: list[Result]) -> list[np.ndarray]:
    return [result.data for result in results if isinstance(result, Sampled)]


def test_denoising_in_graphs_gives_the_samples_of_the_cpu_and_never_waits(
    on_cuda: gaussian_engine.Made, on_cpu: gaussian_engine.Made, never_waits: Callable[[type, str], None]
) -> None:
    never_waits(DeviceRuns, "run")
    requests = [
        gaussian_engine.sample("ddim", 3, 12),
        gaussian_engine.sample("ddpm", 2, 7),
        gaussian_engine.sample("ddim", 2, 9, guidance_scale=2.5),
        gaussian_engine.sample("dpmpp_2m", 4, 6),
    ]
    expected, found = numbers(on_cpu.results(requests)), numbers(on_cuda.results(requests))
    for there, here in zip(found, expected, strict=True):
        assert np.abs(there.astype(int) - here.astype(int)).max() <= 1  # levels: sums round differently
    alone = numbers([on_cuda.results([request])[0] for request in requests])
    for together, one in zip(found, alone, strict=True):
        np.testing.assert_array_equal(together, one)  # the network has no sums, so nothing else differs


def test_decoding_in_graphs_gives_the_tokens_of_the_cpu_and_never_waits(
    tmp_path: Path, never_waits: Callable[[type, str], None]
) -> None:
    never_waits(Running, "start")
    requests = [decoder_engine.sample(3, 15), decoder_engine.sample(2, 8, seed=9, prompt=5, top_k=3)]
    results = []
    for kind, device in ((SlottedLane, decoder_engine.CPU), (DeviceSlottedLane, CUDA)):
        it = decoder_engine.made(kind, tmp_path, device)
        it.engine.start()
        results.append(numbers(it.results(requests)))
        it.engine.stop()
    for here, there in zip(*results, strict=True):
        np.testing.assert_array_equal(here, there)
