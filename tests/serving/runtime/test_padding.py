"""Runs of a fixed row count are filled up with rows of the same run, never with what lay there before."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from export.package.schema import Component
from serving.runtime.load import open_network
from serving.runtime.network import Network, RuntimeOptions
from tests.reliability.bad_networks import BAD, GOOD, write_all

FIXED = 16


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    write_all(folder)
    return folder


def network(packages: Path, name: str, file: str) -> Network:
    tensors = {"dtype": "float32", "shape": ["rows", 2]}
    spec = Component.model_validate(
        {
            "format": "onnx" if file.endswith("onnx") else "torchscript",
            "file": file,
            "inputs": [{"name": "latent", **tensors}],
            "outputs": [{"name": "x", **tensors}],
        }
    )
    options = RuntimeOptions(torch.device("cpu"), threads=1, max_rows=2 * FIXED)
    opened = open_network(packages / name / "1" / file, spec, options)
    opened.fix_rows(FIXED)
    return opened


@pytest.mark.parametrize(
    ("name", "file"),
    [("raises", "decoder.onnx"), ("script-raises", "decoder.pt")],
    ids=["onnx", "torchscript"],
)
def test_a_row_that_failed_does_not_fail_later_runs(packages: Path, name: str, file: str) -> None:
    opened = network(packages, name, file)
    bad = torch.full((3, 2), GOOD)
    bad[2, 0] = BAD
    with pytest.raises(Exception, match=r"."):
        opened({"latent": bad})
    for rows in (1, 2, FIXED, FIXED + 1):
        good = torch.linspace(-GOOD, GOOD, 2 * rows).reshape(rows, 2)
        torch.testing.assert_close(opened({"latent": good})["x"], good)


def test_the_bad_graphs_are_right_for_good_rows(packages: Path) -> None:
    for name in ("nan", "raises", "memory"):
        onnx.checker.check_model(str(packages / name / "1" / "decoder.onnx"))
