"""The client alone, in environments of its own; needs a package index: ``pytest -m slow tests/client``."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("constraints", "protobuf"),
    [
        (["protobuf==6.31.1", "grpcio==1.76.0"], "6.31.1"),
        (["protobuf>=7,<8", "grpcio"], "7."),
    ],
    ids=["oldest", "newest"],
)
def test_the_client_alone_answers_beside(tmp_path: Path, constraints: list[str], protobuf: str) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    wheels = tmp_path / "wheels"
    build = ["wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(_copy(tmp_path))]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (wheel,) = wheels.glob("pxserve-*.whl")
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel), *constraints], check=True)
    smoke = [str(python), "-W", "error", str(ROOT / "tests/client/smoke.py")]
    ran = subprocess.run(smoke, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert re.search(rf"'protobuf': '{re.escape(protobuf)}", ran.stdout), ran.stdout


def _copy(folder: Path) -> Path:
    """The distribution's sources, so that building leaves nothing behind in the checkout."""
    ignore = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    return Path(shutil.copytree(ROOT / "client", folder / "client", ignore=ignore))
