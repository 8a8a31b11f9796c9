"""Everything about a package that can be checked without its source: ``pxserve-export verify``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from export.package.cached_run import read_at_once, steps_invariant
from export.package.check import check_graphs
from export.package.contracts import scores_itself
from export.package.read import Package, read_package
from export.package.run_graph import open_graph
from export.package.schema import Component, Parity
from export.package.seeded import seeded_inputs, seeded_tokens
from export.package.verify import ROWS, verify

Progress = Callable[[str, float], None]


def recheck(
    folder: Path, *, allow_torchscript: bool = False, progress: Progress = lambda what, part: None
) -> tuple[Package, dict[str, Parity]]:
    """Read, check and run ``REPOSITORY/NAME/VERSION``; what running it showed, by component.

    Each graph runs on seeded inputs at several batch sizes: its outputs must be finite, and rows must not
    depend on their neighbours. The cached decoder runs from an empty cache: one token, or whole rows where it
    scores them itself.
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
        for graph in component.graphs:
            if graph.device != "cuda":
                label = name if graph.file == component.file else f"{name} ({graph.kind})"
                found[label] = _run_graph(package, name, graph)
    return found


def _run_graph(package: Package, name: str, graph: Component) -> Parity:
    run = open_graph(package.path(graph.file), graph)
    inputs = seeded_inputs(package.spec, name, max(ROWS))
    if name != "decoder" or not scores_itself(package.spec):
        return verify(run, run, inputs, described="itself, seeded")
    inputs = seeded_tokens(package.spec, max(ROWS))
    whole = read_at_once(run, graph)
    parity = verify(whole, whole, inputs, described="itself, seeded")
    same = parity.batch_invariant and steps_invariant(run, graph, np.asarray(inputs["tokens"], np.int64))
    return parity.model_copy(update={"batch_invariant": same})
