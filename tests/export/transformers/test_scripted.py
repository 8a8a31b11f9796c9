"""Folders as TorchScript for CUDA: every part of a decoder is its source; CPUs keep their own graph."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.package.check import check_graphs
from export.package.errors import PackageError
from export.package.read import read_package
from export.package.variants import chosen
from tests.export.transformers.test_families import exported

PARTS = ["gpt2-scaled", "qwen3", "gemma", "gpt-neox", "phi"]  # every part of a decoder is in one of them


@pytest.mark.parametrize("name", PARTS)
def test_every_part_is_traced_and_is_its_source(name: str, tmp_path: Path) -> None:
    package = exported(name, tmp_path, "--torchscript", "float32")
    there = chosen(package, "cuda").spec.components["decoder"]
    assert (there.format, there.file) == ("torchscript", "decoder.pt")
    parity = package.spec.components["decoder"].variants[-1].parity
    assert parity is not None
    assert parity.max_abs_error < 1e-3
    assert parity.log_prob_error is not None
    assert parity.log_prob_error < 1e-4


def test_half_precision_is_measured_and_a_cpu_needs_no_permission(tmp_path: Path) -> None:
    package = exported("llama", tmp_path, "--precision", "float16", "--torchscript", "float16")
    cpu = chosen(package, "cpu")
    assert cpu.spec.components["decoder"].format == "onnx"
    check_graphs(cpu)
    with pytest.raises(PackageError, match="TorchScript"):
        check_graphs(chosen(package, "cuda"))
    check_graphs(chosen(package, "cuda"), allow_torchscript=True)


def test_bfloat16_is_compared_by_its_rounded_weights(tmp_path: Path) -> None:
    package = exported("gpt2", tmp_path, "--torchscript", "bfloat16")
    parity = read_package(package.folder).spec.components["decoder"].variants[-1].parity
    assert parity is not None
    assert "rounded to bfloat16" in parity.inputs
    assert 0.0 < parity.max_abs_error < 1.0
