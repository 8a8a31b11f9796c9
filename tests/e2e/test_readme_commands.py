"""The commands of the README's first call run as they are written, against a server on another port."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.demo.server import Running

pytestmark = pytest.mark.xdist_group("e2e")

ROOT = Path(__file__).parents[2]
WRITTEN_TARGET = "127.0.0.1:8500"
SECTION = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## A first call\n")[2]
FENCES = re.findall(r"^```(\w+)\n(.*?)^```", SECTION.partition("\n## ")[0], re.M | re.S)
COMMANDS = [line for kind, text in FENCES if kind == "bash" for line in text.splitlines()]
PROGRAMS = [text for kind, text in FENCES if kind == "python"]


def run(command: list[str], target: str, folder: Path) -> str:
    """What a command prints; it must end well. It runs in a folder of its own, since some write files."""
    environment = {**os.environ, "PXSERVE_TARGET": target, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_something_to_run() -> None:
    assert PROGRAMS
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_python_block_runs(server: Running, tmp_path: Path, program: str) -> None:
    assert WRITTEN_TARGET in program
    printed = run(
        [sys.executable, "-c", program.replace(WRITTEN_TARGET, server.target)], server.target, tmp_path
    )
    assert "(16, 1, 8, 8)" in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(server: Running, tmp_path: Path, command: str) -> None:
    name, *arguments = shlex.split(command)
    program = Path(sys.executable).with_name(Path(name).name)
    assert run([str(program), *arguments], server.target, tmp_path).strip()
