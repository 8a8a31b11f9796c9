"""The house's limits: a screen per function, an idea per file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("serving", "export", "kernels", "client/pxserve", "deploy", "docs", "protos", "tests")
FILE_LINES, FUNCTION_LINES, KERNEL_LINES = 300, 40, 80


def files() -> list[Path]:
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if "_pb2" not in path.name and "build" not in path.parts]


def functions(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Name, lines, and whether it is a Triton kernel."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            kernel = any("jit" in ast.dump(decorator) for decorator in node.decorator_list)
            yield node.name, (node.end_lineno or 0) - node.lineno + 1, kernel


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_and_functions_fit_a_screen(folder: str) -> None:
    for path in [path for path in files() if path.is_relative_to(ROOT / folder)]:
        assert len(path.read_text().splitlines()) <= FILE_LINES, path
        if folder == "tests":
            continue
        for name, lines, kernel in functions(path):
            assert lines <= (KERNEL_LINES if kernel else FUNCTION_LINES), f"{path}: {name}"
