"""The TorchScript decoder is the ONNX one: the same inputs, the same answers, at once and in steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export.graph.cached_decoder import build_cached_decoder
from export.graph.decoder import Decoder
from export.graph.interface import onnx_component
from export.graph.onnx import to_bytes
from export.graph.scripted_decoder import ScriptedDecoder, component, example, takes
from export.graph.torchscript import export_torchscript
from export.package.cached_run import read_at_once, read_in_steps
from export.package.run_graph import open_graph
from export.package.schema import Component
from export.package.verify import Run
from tests.export.graph.test_cached_decoder import IDS, LENGTH, decoder


def scripted(network: Decoder, folder: Path) -> tuple[Run, Component]:
    path = folder / "decoder.pt"
    path.write_bytes(
        export_torchscript(ScriptedDecoder(network, torch.float32), example(network, torch.float32))
    )
    entry = Component.model_validate(component(network, torch.float32, path.name))
    return open_graph(path, entry), entry


def onnx(network: Decoder, folder: Path) -> tuple[Run, Component]:
    model, path = build_cached_decoder(network, selective=True), folder / "decoder.onnx"
    path.write_bytes(to_bytes(model))
    entry = Component.model_validate(onnx_component(model, path.name))
    return open_graph(path, entry), entry


def test_inputs_and_outputs_are_those_of_the_onnx_graph(tmp_path: Path) -> None:
    (_, ours), (_, theirs) = scripted(decoder(), tmp_path), onnx(decoder(), tmp_path)
    assert ours.inputs == theirs.inputs
    assert ours.outputs == theirs.outputs


@pytest.mark.parametrize("rows", [1, 3])
def test_answers_are_those_of_the_onnx_graph(tmp_path: Path, rows: int) -> None:
    (ours, entry), (theirs, other) = scripted(decoder(), tmp_path), onnx(decoder(), tmp_path)
    tokens = {"tokens": np.random.default_rng(3).integers(0, IDS, (rows, LENGTH))}
    expected = read_at_once(theirs, other)(tokens)
    found = read_at_once(ours, entry)(tokens)
    for name, value in expected.items():
        np.testing.assert_allclose(
            np.asarray(found[name], np.float64), np.asarray(value, np.float64), atol=2e-5
        )
    stepped = read_in_steps(ours, entry, 5)(tokens)["logits"]
    np.testing.assert_allclose(np.asarray(stepped, float), np.asarray(expected["logits"], float), atol=2e-5)


def test_heads_that_the_kernel_does_not_take_are_known() -> None:
    assert takes(decoder())
    odd = decoder().__class__(**{**decoder().__dict__, "head_dim": 12})
    assert not takes(odd)
