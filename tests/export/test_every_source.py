"""What holds for every source of packages: what is verified, and that failures leave nothing behind."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from export.cli import main
from export.package import write
from export.package.read import list_versions, read_package
from tests.export.assemble.test_graph_files import graph_file
from tests.export.transformers.folders import folder

NETS = """
import torch
from torch import nn
from export.model import Gan, Image

def build():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Unflatten(1, (1, 4, 4)))
    return Gan(layers, latent_shape=(4,), data=Image(1, 4, 4, levels=17, data_range=(-1, 1)), license="MIT")
"""
SPEC = """
family: gan
license: MIT
data: {kind: image, channels: 1, height: SIDE, width: SIDE, levels: 17, data_range: [-1, 1]}
networks: {generator: NETWORK}
gan: {latent_shape: [4]}
"""
Source = Callable[[Path], list[str]]


def module(at: Path) -> list[str]:
    name = f"nets_{at.name}".replace("-", "_")
    (at / f"{name}.py").write_text(NETS, encoding="utf-8")
    return ["module", f"{name}:build", "--path", str(at), "--name", "mine"]


def specification(at: Path, network: str, side: int) -> list[str]:
    text = SPEC.replace("NETWORK", network).replace("SIDE", str(side))
    (at / "model.yaml").write_text(text, encoding="utf-8")
    return ["--spec", str(at / "model.yaml"), "--name", "mine"]


def onnx(at: Path) -> list[str]:
    file = graph_file(at / "g.onnx")
    return ["onnx", str(file), *specification(at, "{inputs: {latent: z}, outputs: {x: img}}", 2)]


def torchscript(at: Path, layer: nn.Linear | None = None) -> list[str]:
    layers = nn.Sequential(layer or nn.Linear(4, 16), nn.Tanh(), nn.Unflatten(1, (1, 4, 4)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(layers, torch.zeros(2, 4)), at / "g.pt")  # type: ignore[no-untyped-call]
    return ["torchscript", str(at / "g.pt"), *specification(at, "{}", 4)]


def transformers(at: Path) -> list[str]:
    return ["transformers", str(folder("gpt2", at)), "--name", "mine"]


SOURCES: tuple[Source, ...] = (module, onnx, torchscript, transformers)
every_source = pytest.mark.parametrize("source", SOURCES, ids=[source.__name__ for source in SOURCES])


@every_source
def test_batches_of_several_sizes_and_rows_alone_are_compared(source: Source, tmp_path: Path) -> None:
    assert main([*source(tmp_path), "--to", str(tmp_path / "models")]) == 0
    package = read_package(tmp_path / "models" / "mine" / "1")
    parity = package.spec.parity
    assert "batches of 1, 2, 3, 8 rows" in parity.inputs
    assert parity.max_rel_error < 1e-4
    assert parity.batch_invariant is not None
    for component in package.spec.components.values():
        assert all(t.shape[0] == "rows" for t in component.inputs if t.name in ("latent", "tokens"))
    assert main(["verify", "--allow-torchscript", str(package.folder)]) == 0


@every_source
def test_a_disk_that_fills_while_files_are_written_leaves_nothing(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = source(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main([*arguments, "--to", str(tmp_path / "models")]) == 1
    shown = capsys.readouterr().err
    assert "No space left on device" in shown
    assert "Nothing was published; correct it and repeat" in shown
    assert not list((tmp_path / "models").rglob("*"))


@every_source
def test_an_interrupted_export_leaves_nothing(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = source(tmp_path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "_publish", interrupted)
    assert main([*arguments, "--to", str(tmp_path / "models")]) == 130
    assert "interrupted; nothing half-written is left" in capsys.readouterr().err
    assert list_versions(tmp_path / "models") == {}
    assert not list((tmp_path / "models").rglob("*"))


def test_torchscript_with_weights_that_are_no_numbers_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = nn.Linear(4, 16)
    with torch.no_grad():
        layer.weight[2, 1] = torch.nan
    assert main([*torchscript(tmp_path, layer), "--to", str(tmp_path / "models")]) == 1
    assert "has 1 of 64 entries that are NaN or infinite" in capsys.readouterr().err
    assert not (tmp_path / "models").exists() or not list((tmp_path / "models").rglob("*"))


@pytest.mark.parametrize(
    ("files", "shown"),
    [
        (["judge={}"], "no network is called 'judge'. Write network | encoder | decoder"),
        (["generator={}", "encoder=gone.onnx"], "there is no such file"),
        (["generator={}", "decoder={}"], "networks.decoder: no such key"),
    ],
)
def test_missing_and_extra_networks_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: list[str], shown: str
) -> None:
    arguments = onnx(tmp_path)
    named = [file.format(tmp_path / "g.onnx") for file in files]
    assert main(["onnx", *named, *arguments[2:], "--to", str(tmp_path / "models")]) == 1
    assert shown in capsys.readouterr().err
