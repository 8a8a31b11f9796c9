"""The benchmark against diffusers, on a network of a few weights: it runs, and both make the same images."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_benchmark_runs_and_both_make_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("diffusers")
    from tests.benchmarks import diffusers_folders, diffusers_peer

    small = {"sample_size": 8, "block_out_channels": (16, 32), "norm_num_groups": 8, "layers_per_block": 1,
             "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
             "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}  # fmt: skip
    monkeypatch.setattr("torch.compile", lambda module: module)
    architecture = diffusers_folders.ARCHITECTURE | small
    flags = [f"--precision={precision}" for precision in diffusers_peer.PRECISIONS]
    made = diffusers_folders.cifar(tmp_path, *flags, architecture=architecture)
    with ExitStack() as stack:
        figures = {figure.name: figure for figure in diffusers_peer._cifar(made, stack, 3, 1)}
    assert figures["float32: off from the pipeline"].met
    assert figures["bfloat16 over diffusers in float32"].value > 0.0
