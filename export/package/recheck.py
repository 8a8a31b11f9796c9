"""Everything about a package that can be checked without its source: ``pxserve-export verify``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.package.check import check_graphs
from export.package.read import Package, read_package
from export.package.run_graph import open_graph
from export.package.schema import Parity
from export.package.seeded import seeded_inputs
from export.package.verify import ROWS, verify

Progress = Callable[[str, float], None]


def recheck(
    folder: Path, *, allow_torchscript: bool = False, progress: Progress = lambda what, part: None
) -> tuple[Package, dict[str, Parity]]:
    """Read, check and run ``REPOSITORY/NAME/VERSION``; what running it showed, by component.

    Each graph runs on seeded inputs at several batch sizes: its outputs must be finite, and rows must not
    depend on their neighbours. The cached decoder runs one token from an empty cache.
    Raises PackageError: those of ``read_package``, ``check_graphs``, ``open_graph`` and ``verify``.
    """
    progress("hashes", 0.0)
    package = read_package(folder)
    check_graphs(package, allow_torchscript=allow_torchscript)
    return package, run_components(package, progress)


def run_components(package: Package, progress: Progress) -> dict[str, Parity]:
    """What running every graph against itself shows, by component (PARITY, GRAPH_MISMATCH)."""
    found: dict[str, Parity] = {}
    for index, (name, component) in enumerate(package.spec.components.items()):
        progress(name, (index + 1) / (len(package.spec.components) + 1))
        run = open_graph(package.component_path(name), component)
        found[name] = verify(
            run, run, seeded_inputs(package.spec, name, max(ROWS)), described="itself, seeded"
        )
    return found
