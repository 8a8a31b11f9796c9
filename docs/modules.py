"""Writes one line per module into docs/structure.md, from the modules' own docstrings."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "structure.md"
FOLDERS = ("serving", "export", "kernels", "client/pxserve", "deploy")
BEGIN, END = "<!-- modules: written by `python docs/modules.py`; a test keeps it fresh -->", "<!-- end -->"


def summary(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.split("\n\n")[0].replace("\n", " ").strip()


def table() -> str:
    """All modules with a docstring, by folder."""
    lines: list[str] = []
    for folder in FOLDERS:
        lines += ["", f"### {folder}", "", "| module | what it is for |", "|---|---|"]
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "_pb2" in path.name or "build" in path.parts:
                continue
            text = summary(path)
            if text:
                lines.append(f"| `{path.relative_to(ROOT / folder)}` | {text} |")
    return "\n".join(lines)


def page() -> str:
    """The whole page with a fresh table."""
    before, rest = PAGE.read_text().split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE}\n")
