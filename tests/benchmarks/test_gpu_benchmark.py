"""The GPU benchmark's networks are the published ones, and its whole program runs on a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.benchmarks import bench_gpu
from tests.benchmarks.gpu import others
from tests.benchmarks.networks import decoder, unet

pytestmark = pytest.mark.filterwarnings("ignore")  # other libraries' own


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(scope="module")
def image_network() -> unet.UNet:
    torch.manual_seed(0)
    return unet.UNet().eval()


@pytest.fixture(scope="module")
def token_network() -> decoder.Decoder:
    torch.manual_seed(0)
    return decoder.Decoder().eval()


def test_networks_have_the_published_sizes(image_network: unet.UNet, token_network: decoder.Decoder) -> None:
    assert parameters(image_network) == unet.PARAMETERS
    assert parameters(token_network) == decoder.PARAMETERS


@torch.no_grad()
def test_image_network_equals_diffusers(image_network: unet.UNet) -> None:
    pytest.importorskip("diffusers")
    x, t = torch.randn(2, 3, 32, 32), torch.tensor([7, 500])
    twin = others.diffusers_unet(image_network)
    torch.testing.assert_close(image_network(x, t), twin(x, t).sample, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_token_network_equals_transformers(token_network: decoder.Decoder) -> None:
    pytest.importorskip("transformers")
    tokens = torch.randint(0, 50_257, (2, 9))
    expected = others.transformers_decoder(token_network)(tokens).logits
    cache = token_network.cache(2, 16)
    actual = [token_network.prefill(tokens[:, :6], cache)]
    actual += [token_network(tokens[:, i], torch.full((2,), i), cache) for i in range(6, 9)]
    torch.testing.assert_close(torch.stack(actual, dim=1), expected[:, 5:], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_decoding_over_the_cache_equals_the_prefix_at_once(token_network: decoder.Decoder) -> None:
    tokens = torch.randint(0, 50_257, (1, 7))
    cache, whole = token_network.cache(1, 8), token_network.cache(1, 8)
    token_network.prefill(tokens[:, :6], cache)
    actual = token_network(tokens[:, 6], torch.tensor([6]), cache)
    torch.testing.assert_close(actual, token_network.prefill(tokens, whole), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cache, whole, rtol=1e-4, atol=1e-4)


def test_dry_run_writes_a_page_that_says_nothing_was_measured(tmp_path: Path) -> None:
    assert bench_gpu.main(["--dry-run", "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "benchmarks-gpu.json").read_text())
    assert content["dry_run"]
    assert not content["skipped"]
    assert len(content["kernels"]) == 12
    ways = {loop["way"] for loop in content["loops"]}
    assert ways == {
        "eager", "TorchScript + denoise_step", "TorchScript + denoise_rows in place", "eager + kernels",
        "TorchScript + kernels",
    }  # fmt: skip
    assert all(loop["difference"] < 1e-4 for loop in content["loops"])
    assert "Nothing here was measured" in (tmp_path / "benchmarks-gpu.md").read_text()


def test_parts_that_would_start_too_late_are_named(tmp_path: Path) -> None:
    assert bench_gpu.main(["--dry-run", "--out", str(tmp_path), "--seconds", "0"]) == 0
    content = json.loads((tmp_path / "benchmarks-gpu.json").read_text())
    assert not content["kernels"]
    assert len(content["skipped"]) == 16
