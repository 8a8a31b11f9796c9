"""The commands that make packages from modules and files: what they print, and what they leave behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from export.cli import main
from export.package.read import list_versions, read_package
from tests.export.assemble.test_graph_files import graph_file

NETS = """
import torch
from torch import nn
from export.model import ClassCondition, Gan, Image

class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 16)
    def forward(self, z):
        return torch.tanh(self.layer(z)).reshape(-1, 1, 4, 4)

def build(kind="plain", size="0"):
    if kind == "other":
        return 7
    if kind == "slow":
        print("building", flush=True)
        import time
        time.sleep(60)
    network = Generator()
    network.register_buffer("ballast", torch.zeros(int(size)))
    if kind == "misspelt":
        return Gan(network, latent_shap=(4,), data=Image(1, 4, 4, levels=17, data_range=(-1, 1)))
    return Gan(network, latent_shape=(4,), data=Image(1, 4, 4, levels=17, data_range=(-1, 1)))
"""


@pytest.fixture
def nets(tmp_path: Path) -> list[str]:
    """A user's module, and the flags that name it; every test has a module of its own name."""
    name = f"nets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(NETS, encoding="utf-8")
    where = ["--path", str(tmp_path), "--to", str(tmp_path / "models"), "--name", "mine", "--license", "MIT"]
    return ["module", f"{name}:build", *where, "--format", "torchscript"]


def test_a_module_becomes_the_next_version(
    nets: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(nets) == 0
    assert main([*nets, "--description", "Mine"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [str(tmp_path / "models" / "mine" / n) for n in ("1", "2")]
    assert "largest error 0" in shown.err
    assert read_package(tmp_path / "models" / "mine" / "2").spec.description == "Mine"


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"--name": ""}, "Add --name NAME"),
        ({"--to": None}, "Add --to DIR"),
        ({"--license": ""}, "--license"),
        ({"--name": "My Model"}, "lower-case letters"),
        ({"--set": "kind=other"}, "build() returned a int. Return one of export.model's Autoregressive"),
        ({"--set": "kind=misspelt"}, "no such key. Remove it; did you mean 'latent_shape'"),
        ({"--labels": "a,b"}, "the model has 0 class conditions"),
        ({"--version": "0"}, "not a positive integer"),
    ],
)
def test_what_is_not_stated_is_asked_for(
    nets: list[str], capsys: pytest.CaptureFixture[str], changed: dict[str, str | None], shown: str
) -> None:
    arguments = list(nets)
    for flag, value in changed.items():
        if flag in arguments:
            place = arguments.index(flag)
            del arguments[place : place + 2]
        arguments += [] if value is None else [flag, value]
    assert main(arguments) == 1
    assert shown in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("nets", "this is no MODULE:FUNCTION"),
        ("no_such_module:build", "there is no module 'no_such_module'"),
        ("json:build", "defines no function 'build'"),
    ],
)
def test_a_source_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, shown: str
) -> None:
    flags = ["--path", str(tmp_path), "--to", str(tmp_path), "--name", "m", "--license", "MIT"]
    assert main(["module", source, *flags]) == 1
    assert shown in capsys.readouterr().err


def test_a_file_does_not_hide_an_installed_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('hidden')", encoding="utf-8")
    flags = ["--path", str(tmp_path), "--to", str(tmp_path), "--name", "m", "--license", "MIT"]
    assert main(["module", "json:build", *flags]) == 1
    assert "'json' is also an installed module" in capsys.readouterr().err


SPEC = """
family: gan
license: MIT
data: {kind: image, channels: 1, height: 2, width: 2, levels: DECIDE, data_range: [-1, 1]}
networks: {generator: {inputs: {latent: z}, outputs: {x: img}}}
gan: {latent_shape: [4]}
"""


def test_an_onnx_file_with_its_specification_becomes_a_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = graph_file(tmp_path / "g.onnx")
    (tmp_path / "model.yaml").write_text(SPEC, encoding="utf-8")
    spec = ["--spec", str(tmp_path / "model.yaml"), "--to", str(tmp_path / "models"), "--name", "g"]
    assert main(["onnx", str(file), *spec]) == 1
    assert "data.levels still says DECIDE" in capsys.readouterr().err
    assert main(["onnx", str(file), *spec, "--levels", "17"]) == 0
    assert main(["onnx", f"generator={file}", *spec, "--levels", "17"]) == 0
    assert list_versions(tmp_path / "models") == {"g": [1, 2]}
    assert main(["verify", str(tmp_path / "models")]) == 0


def test_without_a_specification_a_template_is_offered_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = graph_file(tmp_path / "g.onnx")
    assert main(["onnx", str(file)]) == 1
    assert (
        "--family autoregressive | autoencoder | vae | gan | diffusion > model.yaml"
        in capsys.readouterr().err
    )
    assert main(["onnx", str(file), "--family", "gan"]) == 0
    text = capsys.readouterr().out
    assert "inputs: {latent: z}" in text
    assert "outputs: {x: img}" in text
    assert main(["template", "diffusion"]) == 0
    assert "schedule: DECIDE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["onnx", "{}", "--family", "vae"], "Write encoder=FILE decoder=FILE"),
        (["torchscript", "{}"], "this is onnx, not torchscript. Run pxserve-export onnx"),
        (["onnx", "gone.onnx", "--family", "gan"], "there is no such file"),
        (["onnx", "{}", "--spec", "gone.yaml"], "there is no such file"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], shown: str
) -> None:
    file = graph_file(tmp_path / "g.onnx")
    assert main([argument.format(file) for argument in arguments]) == 1
    assert shown in capsys.readouterr().err


def left_behind(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


def test_a_disk_that_fills_leaves_nothing(nets: list[str], tmp_path: Path) -> None:
    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    command = [sys.executable, "-m", "export", *nets, "--set", "size=100000"]
    done = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=small_files, timeout=100, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "writing failed" in done.stderr
    assert "Nothing was published" in done.stderr
    assert not left_behind(tmp_path / "models")


def test_an_interrupted_export_leaves_no_package(nets: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "export", *nets, "--set", "kind=slow"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "building"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; nothing half-written is left" in error
    assert list_versions(tmp_path / "models") == {}
    assert not left_behind(tmp_path / "models")


def test_an_export_killed_while_it_writes_is_swept_by_the_next(nets: list[str], tmp_path: Path) -> None:
    models = tmp_path / "models"
    command = [sys.executable, "-m", "export", *nets, "--set", f"size={30_000_000}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not left_behind(models) and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    assert list_versions(models) == {}, "a half-written package was published"
    assert main(nets) == 0
    assert list_versions(models) == {"mine": [1]}
    assert not list(models.rglob(".writing-*"))
