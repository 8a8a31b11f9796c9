"""A candidate: another form of a component's graph, as files and as its entry in ``model.yaml``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.package.schema import Component

NOW = "as served"


class NotHere(Exception):
    """A candidate that does not apply to this package or machine; says why."""


@dataclass(frozen=True)
class Form:
    """One component in another form; ``files`` lie in the folder in which it was made."""

    component: Component
    files: tuple[str, ...]
    folder: Path

    @property
    def path(self) -> Path:
        """Of its graph."""
        return self.folder / self.component.file

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum((self.folder / file).stat().st_size for file in self.files)


Make = Callable[[str, Component, Path], Form | None]
"""A component's name, its entry and a folder to write to -> the form; None: it stays as it is."""


@dataclass(frozen=True)
class Candidate:
    """``make`` raises NotHere; ``why`` is for people."""

    name: str
    why: str
    make: Make


@dataclass
class Row:
    """A line of the table; ``speed`` by rows of a run, relative to what is served now."""

    name: str
    forms: dict[str, Form] = field(default_factory=dict)
    speed: dict[int, float] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)  # Parity by component
    absent: str = ""  # why it does not apply

    @property
    def size_bytes(self) -> int:
        """Of the files of all forms."""
        return sum(form.size_bytes for form in self.forms.values())
