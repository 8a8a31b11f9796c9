"""Files of every family, as people write them, with the template filled in as it asks."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from export.cli import main
from export.package.read import read_package

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


@dataclass(frozen=True)
class File:
    """A network as a file: example arguments, and what the ONNX graph calls inputs and outputs."""

    network: nn.Module
    arguments: tuple[Tensor, ...]
    inputs: Sequence[str]
    outputs: Sequence[str]
    axes: dict[str, dict[int, str]] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        """ONNX or TorchScript, by the name's end."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path.suffix == ".pt":
                traced = torch.jit.trace(self.network.eval(), self.arguments, strict=False)  # type: ignore[no-untyped-call]
                torch.jit.save(traced, path)
                return path
            axes = self.axes or {name: {0: "rows"} for name in (*self.inputs, *self.outputs)}
            torch.onnx.export(
                self.network.eval(), self.arguments, path, input_names=self.inputs,
                output_names=self.outputs, dynamic_axes=axes, dynamo=False,
            )  # fmt: skip
        return path


class Bare(nn.Module):
    """A denoiser that returns the tensor itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        found: Tensor = self.network(x, t, y).sample
        return found


class Pair(nn.Module):
    """An encoder that returns a tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        found = self.network(pixels)
        return found["mu"], found["logvar"]


def example(module: str, function: str = "build") -> Any:
    if str(EXAMPLES) not in sys.path:
        sys.path.append(str(EXAMPLES))
    return getattr(importlib.import_module(module), function)()


def networks(family: str) -> dict[str, File]:
    """The files of each family by network."""
    image, ids = torch.rand(2, 1, 8, 8), torch.tensor([1, 2])
    match family:
        case "vae":
            model = example("vae", "bernoulli")
            encoder = File(Pair(model.encoder.module), (torch.rand(2, 64),), ["pixels"], ["mu", "logvar"])
            return {
                "encoder": encoder,
                "decoder": File(model.decoder.module, (torch.rand(2, 6),), ["z"], ["p"]),
            }
        case "autoencoder":
            layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
            back = nn.Sequential(nn.Linear(5, 64), nn.Unflatten(1, (1, 8, 8)))
            return {
                "encoder": File(layers, (image,), ["image"], ["code"]),
                "decoder": File(back, (torch.rand(2, 5),), ["code"], ["recon"]),
            }
        case "gan":
            latent = (torch.rand(2, 16, 1, 1),)
            return {"generator": File(example("gan").generator, latent, ["z"], ["img"])}
        case "diffusion":
            network = Bare(example("denoisers", "ddpm").denoiser.module)
            return {"denoiser": File(network, (image, ids, ids), ["x", "t", "y"], ["eps"])}
    axes = {name: {0: "rows", 1: "length"} for name in ("ids", "logits")}
    tokens = torch.randint(0, 256, (2, 7))
    return {"network": File(example("transformer").network, (tokens,), ["ids"], ["logits"], axes)}


IMAGE = {
    "license": "MIT",
    "channels": "1",
    "height": "8",
    "width": "8",
    "levels": "17",
    "data_range": "[-1, 1]",
}
ANSWERS: dict[str, dict[str, str]] = {
    "vae": {**IMAGE, "levels": "2", "data_range": "[0, 1]", "posterior": "mean_logvar", "layout": "flat",
            "observation": "{kind: bernoulli, outputs: probabilities}", "latent_shape": "[6]"},
    "autoencoder": {**IMAGE, "latent_shape": "[5]"},
    "gan": {**IMAGE, "channels": "3", "latent_shape": "[16, 1, 1]"},
    "diffusion": {**IMAGE, "schedule": "{kind: cosine_betas, steps: 1000}", "prediction": "epsilon",
                  "time": "step", "time_dtype": "int64"},
    "autoregressive": {"license": "MIT", "vocabulary": "257", "length": "24",
                       "begin": "{kind: symbol, symbol: 256}", "any_length": "true", "variable": "true",
                       "tokenizer": "bytes"},
}  # fmt: skip


def filled(family: str, suffix: str, text: str) -> str:
    """The template with every answer in its line, as a person would fill it in."""
    for key, value in ANSWERS[family].items():
        text = re.sub(rf"^(\s*{key}:) [^#\n]*", rf"\1 {value}  ", text, flags=re.M)
    text = text.replace("classes: DECIDE, null_value: DECIDE", "classes: 10, null_value: 10")
    text = text.replace("{mean: DECIDE, log_variance: DECIDE}", "{mean: 0, log_variance: 1}")
    return text.replace("outputs: DECIDE", f"outputs: {{logits: {'p' if suffix == 'onnx' else 0}}}")


@pytest.mark.parametrize("suffix", ["onnx", "pt"])
@pytest.mark.parametrize("family", list(ANSWERS))
def test_a_filled_template_and_its_files_are_a_package(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    suffix: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    files = {name: file.write(Path(f"{name}.{suffix}")) for name, file in networks(family).items()}
    source = "onnx" if suffix == "onnx" else "torchscript"
    named = [f"{name}={file}" for name, file in files.items()]
    assert main([source, *named, "--family", family]) == 0
    shown = capsys.readouterr()
    assert f"pxserve-export {source} {' '.join(named)} --spec model.yaml --to DIR" in shown.err
    text = filled(family, suffix, shown.out)
    assert "DECIDE" not in "".join(line.split("#")[0] for line in text.splitlines()), text
    Path("model.yaml").write_text(text, encoding="utf-8")
    flags = ["--to", "models", "--name", "mine"]
    assert main([source, *(named if suffix == "onnx" else []), "--spec", "model.yaml", *flags]) == 0
    assert main(["verify", "--allow-torchscript", "models/mine/1"]) == 0
    spec = read_package(tmp_path / "models" / "mine" / "1").spec
    assert spec.family == family
    assert spec.parity.max_rel_error < 1e-5
    assert "batches of 1, 2, 3, 8 rows" in spec.parity.inputs


def test_what_a_graph_says_needs_no_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    networks("diffusion")["denoiser"].write(Path("unet.onnx"))
    assert main(["onnx", "unet.onnx", "--family", "diffusion"]) == 0
    text = capsys.readouterr().out
    for line in ("  height: 8", "  time_dtype: int64", "outputs: {prediction: eps}",
                 "- {kind: class, name: y, classes: DECIDE, null_value: DECIDE}"):  # fmt: skip
        assert line in text
