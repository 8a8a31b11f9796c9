"""The README's section "Secure it" runs as it is written, and what it starts asks for its token."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from deploy.demo.server import free_port
from serving.config import Config, flag_of

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("\n## Secure it\n")[2].partition("\n## ")[0]
[BLOCK] = re.findall(r"^```bash\n(.*?)^```", SECTION, re.M | re.S)
# After the block: a call without the token; then the server is ended.
CHECKS = """
PXSERVE_TOKEN= .venv/bin/pxserve models --target localhost:8500 --tls server.pem && exit 9
kill $!
wait $! || true
"""


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """A folder like a checkout, with one model."""
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "digits-diffusion").symlink_to(models / "digits-diffusion")
    return tmp_path


def test_the_block_runs_and_a_call_without_the_token_is_refused(folder: Path) -> None:
    port = str(free_port())
    script = (BLOCK + CHECKS).replace("--no-reflection", "--no-reflection --metrics 127.0.0.1:0")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace(":8500", f":{port}")],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "UNAUTHENTICATED" in done.stdout
    secret = (folder / "alice.secret").read_text().split()[-1]
    assert secret.startswith("pxs_")
    assert secret not in done.stdout + (folder / "tokens.toml").read_text()


def test_the_flags_of_the_section_exist() -> None:
    known = {f"--{flag_of(name)}" for name in Config.__dataclass_fields__}
    named = set(re.findall(r"`(--[a-z-]+)", SECTION)) - {"--scope"}
    assert {"--tls-client-ca", "--admin-listen"} <= named <= known
