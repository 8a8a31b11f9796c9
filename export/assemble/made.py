"""A component as it was written: its files, its entry in ``model.yaml``, and what it must agree with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.package.schema import Component, ModelSpec
from export.package.verify import Arrays, Run

Say = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """``files`` lie in ``folder`` under the names that they get in the package; ``source``: the network
    itself.

    ``inputs``: seeded, as many rows as verification takes. ``doubt``: what is to blame where they differ, and
    what to do about it. ``variant``: another graph of the component of this name that came before it.
    """

    name: str
    folder: Path
    files: tuple[str, ...]
    entry: dict[str, Any]
    source: Run
    inputs: Arrays
    doubt: tuple[str, str] | None = None
    variant: bool = False

    @property
    def component(self) -> Component:
        """The entry, checked."""
        return Component.model_validate(self.entry)

    @property
    def path(self) -> Path:
        """Of its graph."""
        return self.folder / str(self.entry["file"])


@dataclass(frozen=True)
class Order:
    """What every source of components is told: the package as drafted, where to write, in which form."""

    spec: ModelSpec
    folder: Path
    format: str
    vjp: bool
    say: Say
    precisions: tuple[str, ...] = ("float32",)
