"""Export alone, as people install it where they train: a wheel, no server, their own torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NETS = """
from torch import nn
from export.model import Gan, Image

def build():
    layers = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Unflatten(1, (1, 4, 4)))
    return Gan(layers, latent_shape=(4,), data=Image(1, 4, 4, levels=17, data_range=(-1, 1)))
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with export's wheel; what it depends on comes from this one, its own packages do not."""
    folder = tmp_path_factory.mktemp("alone")
    source = shutil.copytree(
        ROOT / "export",
        folder / "export",
        ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"),
    )
    build = ["wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True, capture_output=True)
    (wheel,) = folder.glob("pxserve_export-*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    install = ["--python", str(python), "install", "-q", "--no-deps", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its .pth files stay unread
    return python


def run(python: Path, at: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(word) for word in words]
    return subprocess.run(
        command, cwd=at, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_module_is_exported_without_the_server(alone: Path, tmp_path: Path) -> None:
    hidden = run(alone, tmp_path, str(alone), "-c", "import serving")
    assert "No module named 'serving'" in hidden.stderr
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "nets.py").write_text(NETS, encoding="utf-8")
    command = str(alone.with_name("pxserve-export"))
    flags = ["--to", "models", "--name", "mine", "--license", "MIT"]
    done = run(alone, tmp_path, command, "module", "mypackage.nets:build", *flags)
    assert done.returncode == 0, done.stderr
    checked = run(alone, tmp_path, command, "verify", "models")
    assert checked.returncode == 0, checked.stderr
    assert "mine/1: ok, gan" in checked.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_is_imported_that_is_not_asked_for(alone: Path, tmp_path: Path) -> None:
    """Top-level modules of an export from a module, against the distributions that the wheel requires."""
    (tmp_path / "nets.py").write_text(NETS, encoding="utf-8")
    script = (
        "import sys; from nets import build; "
        "build().export('models', 'mine', license='MIT'); "
        "print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = run(alone, tmp_path, str(alone), "-c", script)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {"torch", "onnx", "onnxruntime"} <= loaded
    assert not loaded & {"serving", "pxserve", "kernels", "grpc", "transformers", "diffusers", "sklearn"}


def test_torch_is_asked_for_loosely() -> None:
    (torch,) = [line for line in requires("pxserve-export") or () if line.startswith("torch")]
    assert re.fullmatch(r"torch>=2\.\d+", torch)


def test_the_users_folder_comes_last_on_the_import_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export.importers.module_source import build_model

    (tmp_path / "nets_come_last.py").write_text(NETS, encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    build_model("nets_come_last:build", tmp_path, {})
    assert sys.path[-1] == str(tmp_path)
