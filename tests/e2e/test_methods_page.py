"""docs/methods.md is what the reference models say of themselves."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_of_methods_is_fresh(models: Path) -> None:
    spec = importlib.util.spec_from_file_location("methods", ROOT / "docs" / "methods.py")
    assert spec is not None
    assert spec.loader is not None
    methods = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(methods)
    assert methods.page(models) == methods.PAGE.read_text(), "run `python docs/methods.py`"
