"""Speed and error of candidates: interleaved rounds on this machine, and answers on seeded rows."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.package.errors import PackageError
from export.package.read import Package
from export.package.verify import TOLERANCES, verify
from export.tune.candidate import NOW, Candidate, Form, NotHere, Row
from export.tune.work import Opened, log_prob_error, opened

Progress = Callable[[str, float], None]
LEAST_S = 0.02  # of one measurement; shorter runs are repeated


def tuned_components(package: Package) -> list[str]:
    """Those that requests run; gradient graphs stay as they are."""
    return [name for name in package.spec.components if not name.endswith("_vjp")]


def made_rows(package: Package, wanted: Sequence[Candidate], folder: Path, progress: Progress) -> list[Row]:
    """A row for what is served now, and one for every candidate, with its forms or the reason for none."""
    spec = package.spec
    now = Row(NOW)
    for name in tuned_components(package):
        graph = spec.components[name].graphs[0]
        files = (graph.file, *(file for file in spec.files if file == f"{graph.file}.data"))
        now.forms[name] = Form(graph, files, package.folder)
    rows = [now]
    for index, candidate in enumerate(wanted):
        progress(f"making {candidate.name}", 0.05 + 0.35 * index / len(wanted))
        rows.append(_made(package, candidate, folder))
        gc.collect()
    return rows


def _made(package: Package, candidate: Candidate, folder: Path) -> Row:
    row = Row(candidate.name)
    try:
        for name in tuned_components(package):
            form = candidate.make(name, package.spec.components[name].graphs[0], folder)
            if form is not None:
                row.forms[name] = form
    except (NotHere, PackageError) as reason:
        row.forms, row.absent = {}, str(reason)
    else:
        row.absent = "" if row.forms else "nothing in its graphs changes"
    return row


def measure(
    package: Package,
    rows: Sequence[Row],
    counts: Sequence[int],
    rounds: int,
    threads: int,
    progress: Progress,
) -> None:
    """Fill in errors and speeds: the median over rounds of the ratio within a round.

    Graphs of one component are open at a time, one of each candidate.
    """
    present = [row for row in rows if not row.absent]
    seconds = {(row.name, count): np.zeros(rounds) for row in present for count in counts}
    names = tuned_components(package)
    for index, name in enumerate(names):
        progress(f"measuring {name}", 0.4 + 0.55 * index / len(names))
        graphs = _opened(package, name, present, threads)
        _compare(package, name, present, graphs)
        for key, taken in _timed(graphs, counts, rounds).items():
            seconds[key] += taken
        del graphs
        gc.collect()
    for row in present:
        row.speed = {
            count: float(np.median(seconds[NOW, count] / seconds[row.name, count])) for count in counts
        }


def _opened(package: Package, name: str, rows: Sequence[Row], threads: int) -> dict[str, Opened]:
    """Graphs by candidate; one that leaves this component as it is shares the first."""
    found: dict[str, Opened] = {}
    for row in rows:
        if name in row.forms:
            found[row.name] = opened(package.spec, name, row.forms[name], threads)
        else:
            found[row.name] = found[NOW]
    return found


def _compare(package: Package, name: str, rows: Sequence[Row], graphs: Mapping[str, Opened]) -> None:
    """Errors of every candidate against what is served now; one that is too far off does not apply."""
    now, file = graphs[NOW], package.spec.components[name].file
    wanted = now.answer(now.inputs)
    for row in rows:
        if name not in row.forms or row.name == NOW:
            continue
        component, run = row.forms[name].component, graphs[row.name].answer
        tolerance = TOLERANCES[component.precision] if component.weights == "same" else math.inf
        try:
            parity = verify(run, now.answer, now.inputs, tolerance=tolerance,
                            described=f"seeded inputs, against {file}")  # fmt: skip
        except PackageError as error:
            row.absent = error.problem
            continue
        same = bool(parity.batch_invariant) and graphs[row.name].invariant()
        nats = log_prob_error(package.spec, run(now.inputs), wanted, now.inputs)
        row.parity[name] = parity.model_copy(update={"log_prob_error": nats, "batch_invariant": same})


def _timed(
    graphs: Mapping[str, Opened], counts: Sequence[int], rounds: int
) -> dict[tuple[str, int], npt.NDArray[np.float64]]:
    """Seconds of a run in each round, by candidate and rows; a round runs all, one after another."""
    steps = {(name, count): graph.step(count) for name, graph in graphs.items() for count in counts}
    repeats = {key: max(1, math.ceil(LEAST_S / _seconds(step, 1))) for key, step in steps.items()}
    taken: dict[tuple[str, int], list[float]] = {key: [] for key in steps}
    for _ in range(rounds):
        for key, step in steps.items():
            taken[key].append(_seconds(step, repeats[key]))
    return {key: np.array(values) for key, values in taken.items()}


def _seconds(step: Callable[[], object], repeats: int) -> float:
    """Of one run, after one that is not counted."""
    step()
    begun = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - begun) / repeats
