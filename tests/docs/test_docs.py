"""What the documentation says is what the code does."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from serving.telemetry.table import REASONS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def page_of(name: str) -> ModuleType:
    """The module docs/NAME.py, which writes a page."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["modules", "metrics"])
def test_a_written_page_is_fresh(name: str) -> None:
    module = page_of(name)
    assert module.page() == module.PAGE.read_text(), f"run `python docs/{name}.py`"


def test_counters_of_refusals_begin_at_zero_for_every_documented_reason() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    documented = re.findall(r"^\| [A-Z_]+ \| `([A-Z_]+)`", page, re.M)
    assert sorted(REASONS) == sorted(documented), "serving/telemetry/table.py: REASONS"


def test_every_reason_in_the_code_is_documented_and_no_other() -> None:
    documented = set(
        re.findall(r"^\| [A-Z_]+ \| `([A-Z_]+)`", (ROOT / "docs" / "errors.md").read_text(), re.M)
    )
    code = "\n".join(path.read_text() for path in (ROOT / "serving").rglob("*.py"))
    used = set(re.findall(r'reason="([A-Z_]+)"', code))
    used |= set(re.findall(r'code, reason = Code\.[A-Z_]+, "([A-Z_]+)"', code))
    assert used == documented


def test_every_link_of_the_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"make ([a-z-]+)", README)) - {"and"}
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in targets:
        assert re.search(rf"^{target}\s", listed, re.M) or target == "help", target


def test_the_commands_explain_themselves() -> None:
    for command in ("pxserve", "pxserve-export", "pxserve-server"):
        path = Path(sys.executable).with_name(command)
        shown = subprocess.run([path, "--help"], capture_output=True, text=True, check=False)
        assert shown.returncode == 0, shown.stderr
        assert "usage" in shown.stdout
