"""docs/methods.md and the README's table are what the reference models say of themselves."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def load_methods() -> ModuleType:
    spec = importlib.util.spec_from_file_location("methods", ROOT / "docs" / "methods.py")
    assert spec is not None
    assert spec.loader is not None
    methods = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = methods  # dataclasses look their module up
    spec.loader.exec_module(methods)
    return methods


def test_the_page_of_methods_is_fresh(models: Path) -> None:
    methods = load_methods()
    assert methods.page(models) == methods.PAGE.read_text(), "run `python docs/methods.py`"


def test_the_table_of_the_readme_is_fresh(models: Path) -> None:
    methods = load_methods()
    assert methods.BEGIN in methods.README.read_text(encoding="utf-8")
    assert methods.readme(models) == methods.README.read_text(encoding="utf-8"), (
        "run `python docs/methods.py`"
    )
