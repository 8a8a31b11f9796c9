"""The commands of docs/operations.md run as written, in their order, against the server that they start."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.demo.server import free_port
from serving.config import Config, flag_of

pytestmark = pytest.mark.xdist_group("operations")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)
MODELS = ("digits-vae",)
TIMEOUT_S = 240.0


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder like a checkout: commands in .venv, packages in models; what was started there is ended."""
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    for name in MODELS:
        shutil.copytree(models / name, tmp_path / "models" / name)
    yield tmp_path
    started = tmp_path / "pxserve.pid"
    if started.exists():
        with suppress(ProcessLookupError):
            os.kill(int(started.read_text()), signal.SIGKILL)


def test_the_page_has_blocks_to_run() -> None:
    assert len(BLOCKS) >= 9


@pytest.mark.timeout(300)
def test_every_block_runs_in_order(folder: Path) -> None:
    ports = {written: str(free_port()) for written in ("8500", "8502")}
    for block in BLOCKS:
        command = re.sub(r"127\.0\.0\.1:(850[02])", lambda found: f"127.0.0.1:{ports[found[1]]}", block)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}"
        if "first_row" in block:
            assert "row 1 again, bit for bit" in done.stdout
        if "tail -n 2 pxserve.log" in block:
            assert "stopped all_finished=True" in done.stdout


def test_the_settings_of_the_page_exist() -> None:
    flags = {f"--{flag_of(name)}" for name in Config.__dataclass_fields__} | {"--config"}
    [table] = re.findall(r"^\| setting \|.*?(?=\n\n)", PAGE, re.M | re.S)
    named = set(re.findall(r"^\| `(--[a-z-]+)", table, re.M))
    assert len(named) >= 6
    assert named <= flags


def test_every_link_of_the_page_leads_somewhere() -> None:
    for name, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", PAGE):
        path = ROOT / "docs" / name if name else ROOT / "docs" / "operations.md"
        assert path.exists(), name
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
            assert anchor in {heading.lower().replace(" ", "-").replace(",", "") for heading in headings}, (
                anchor
            )
