"""A module, ONNX files and a TorchScript file, exported as README says, served, and asked over gRPC."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from deploy.demo.server import serving
from export.cli import main
from pxserve import Client

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("module-sources")]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NETWORKS = '''
import torch
from torch import nn


class Encoder(nn.Module):
    """Pixels [rows, 64] -> means and log-variances, [rows, 6] each."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 12))

    def forward(self, x):
        return self.layers(x).chunk(2, dim=1)


class Decoder(nn.Module):
    """Latents [rows, 6] -> logits [rows, 64]."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 64))

    def forward(self, z):
        return self.layers(z)
'''
ANSWERS = {
    "license": "MIT", "channels": "1", "height": "8", "width": "8", "levels": "2", "data_range": "[0, 1]",
    "posterior": "mean_logvar", "observation": "{kind: bernoulli, outputs: logits}",
    "outputs": "{logits: logits}", "latent_shape": "[6]",
}  # fmt: skip


def blocks(title: str, kind: str) -> list[str]:
    """README's blocks of a kind under a heading."""
    section = README.split(f"### {title}")[1].split("\n#")[0]
    return re.findall(rf"^```{kind}\n(.*?)^```", section, re.S | re.M)


def commands(title: str, program: str) -> list[str]:
    """The commands of a section that start a program of ours."""
    lines = [line for text in blocks(title, "bash") for line in text.splitlines()]
    return [line for line in lines if line.split()[0] == f".venv/bin/{program}"]


def run(command: str, at: Path, target: str = "") -> str:
    command = command.replace(".venv/bin/", f"{Path(sys.executable).parent}/", 1)
    command += f" --target {target}" if target else ""
    done = subprocess.run(
        ["bash", "-c", command], cwd=at, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def export(command: str, at: Path) -> None:
    """A command of pxserve-export in this process, in the folder, with what it prints where it says."""
    words, _, file = command.partition(" > ")
    with contextlib.chdir(at), contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(shlex.split(words)[1:]) == 0, command
        if file:
            Path(file).write_text(printed.getvalue(), encoding="utf-8")


def networks(at: Path) -> dict[str, nn.Module]:
    """The networks of the user's package, with the same weights every time."""
    spec = importlib.util.spec_from_file_location("readme_networks", at / "mypackage" / "networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    return {"encoder": module.Encoder().eval(), "decoder": module.Decoder().eval()}


def write_files(at: Path) -> None:
    """What a user has: a package, its weights, ONNX files, a TorchScript file."""
    (at / "mypackage").mkdir()
    (at / "mypackage" / "networks.py").write_text(NETWORKS, encoding="utf-8")
    (program,) = blocks("From a module", "python")
    (at / "mypackage" / "nets.py").write_text(program, encoding="utf-8")
    sizes, names = {"encoder": 64, "decoder": 6}, {"encoder": ["mean", "log_variance"], "decoder": ["logits"]}
    for name, network in networks(at).items():
        save_file(network.state_dict(), at / f"{name}.safetensors")
        axes = {value: {0: "rows"} for value in ("x", *names[name])}
        torch.onnx.export(network, (torch.zeros(2, sizes[name]),), at / f"{name}.onnx", input_names=["x"],
                          output_names=names[name], dynamic_axes=axes, dynamo=False)  # fmt: skip
    generator = nn.Sequential(nn.Linear(6, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
    torch.jit.save(torch.jit.trace(generator, torch.zeros(2, 6)), at / "generator.pt")  # type: ignore[no-untyped-call]


def fill_in(path: Path) -> None:
    """Every DECIDE, as a person would."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for place, line in enumerate(lines):
        key = line.split(":")[0].strip()
        if "DECIDE" in line.split("#")[0] and not line.startswith("#"):
            lines[place] = f"{line.split(':')[0]}: {ANSWERS[key]}"
        if key == "layout" and path.name == "model.yaml":
            lines[place] = "    layout: flat"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where README's commands ran, in their order; specifications are filled in as soon as they are there."""
    at = tmp_path_factory.mktemp("module-sources")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_files(at)
    titles = ("From a module", "From an ONNX or TorchScript file")
    for command in (command for title in titles for command in commands(title, "pxserve-export")):
        export(command, at)
        if ">" in command:
            fill_in(at / command.rpartition(">")[2].strip())
    return at


@pytest.fixture(scope="module")
def target(place: Path) -> Iterator[str]:
    with serving(place / "models", log=place / "server.log", flags=["--allow-torchscript"]) as running:
        yield running.target


def test_there_is_something_to_run() -> None:
    assert len(commands("From a module", "pxserve-export")) == 1
    assert len(commands("From an ONNX or TorchScript file", "pxserve-export")) >= 4


def test_what_was_exported_is_asked_as_readme_says(place: Path, target: str) -> None:
    for command in commands("From a module", "pxserve"):
        run(command, place, target)
    assert (place / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_network_by_two_ways_gives_the_same_answers(place: Path, target: str) -> None:
    rows = np.random.default_rng(0).integers(0, 2, (3, 1, 8, 8), np.uint8)
    with Client(target, timeout_s=60.0) as client:
        first, second = (
            np.asarray(client.encode(name, rows).latents, np.float64) for name in ("my-vae", "my-onnx-vae")
        )
        drawn = client.sample("my-gan", 2, seed=1).data
    mean, _ = networks(place)["encoder"](torch.from_numpy(rows.reshape(3, 64).astype(np.float32)))
    np.testing.assert_allclose(first, mean.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(second, first, atol=1e-5)
    assert drawn.shape == (2, 1, 8, 8)


def test_a_notebook_writes_the_same_package(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.chdir(place)
    importlib.import_module("mypackage.nets").build().export("again", "my-vae", license="MIT")
    for file in ("encoder.onnx", "decoder.onnx", "model.yaml"):
        written = (place / "again" / "my-vae" / "1" / file).read_bytes()
        assert written == (place / "models" / "my-vae" / "1" / file).read_bytes(), file
