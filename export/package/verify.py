"""Is the graph the network it was exported from? Compared on given inputs, at several batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.package.errors import PackageError, Reason
from export.package.schema import Parity

Arrays = Mapping[str, npt.NDArray[np.generic]]
Run = Callable[[Arrays], Arrays]

ROWS = (1, 2, 3, 8)
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Difference:
    """Largest absolute error, and relative to the largest absolute value of the source's output."""

    absolute: float = 0.0
    relative: float = 0.0

    def joined(self, other: Difference) -> Difference:
        """The larger of both."""
        return Difference(max(self.absolute, other.absolute), max(self.relative, other.relative))


def verify(
    run_graph: Run,
    run_source: Run,
    inputs: Arrays,
    *,
    described: str = "seeded inputs",
    rows: Sequence[int] = ROWS,
    tolerance: float = TOLERANCE,
) -> Parity:
    """Compare graph and source on the first n rows of ``inputs`` ([rows, ...] or scalar), n in ``rows``.

    The error may be ``tolerance`` times the largest absolute value of the output (at least 1). Rows must
    not depend on their neighbours: the graph, run row by row, must agree with itself likewise.
    Raises PackageError (PARITY): an error above tolerance, other names or shapes, NaN or infinity, fewer
    input rows than ``rows`` asks for.
    """
    total = min(len(value) for value in inputs.values() if value.ndim)
    if max(rows) > total:
        raise _refused(f"{total} input rows, but batches of {max(rows)}", "Give more input rows")
    whole = run_source(_first(inputs, max(rows)))
    worst, outputs = Difference(), {}
    for count in sorted(rows):
        outputs[count] = run_graph(_first(inputs, count))
        source = run_source(_first(inputs, count))
        worst = worst.joined(compare(outputs[count], source, f"batch of {count}"))
    _check(worst, whole, tolerance, "the graph is not the network it was exported from")
    invariant = _check_invariance(run_graph, inputs, outputs[max(rows)], max(rows), tolerance)
    sizes = ", ".join(map(str, sorted(rows)))
    return Parity(
        max_abs_error=worst.absolute,
        max_rel_error=worst.relative,
        inputs=f"{described}; batches of {sizes} rows",
        batch_invariant=invariant,
    )


def _first(inputs: Arrays, rows: int) -> Arrays:
    return _rows(inputs, slice(0, rows))


def _rows(inputs: Arrays, rows: slice) -> Arrays:
    """These rows of every input; scalars belong to all of them."""
    return {name: value[rows] if value.ndim else value for name, value in inputs.items()}


def compare(found: Arrays, wanted: Arrays, what: str) -> Difference:
    """The largest difference of two answers; PackageError (PARITY) where they cannot be compared."""
    if set(found) != set(wanted):
        raise _refused(f"{what}: outputs {sorted(found)}, not {sorted(wanted)}", "Export the graph again")
    worst = Difference()
    for name, value in wanted.items():
        if found[name].shape != value.shape:
            raise _refused(
                f"{what}: {name} is {list(found[name].shape)}, not {list(value.shape)}",
                "Export with a dynamic batch",
            )
        worst = worst.joined(_difference(name, found[name], value, what))
    return worst


def _difference(
    name: str, found: npt.NDArray[np.generic], wanted: npt.NDArray[np.generic], what: str
) -> Difference:
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    for values, side in ((b, "the source's"), (a, "the graph's")):
        if not np.isfinite(values).all():
            raise _refused(f"{what}: {side} {name} has NaN or infinity", "Check the weights and the inputs")
    absolute = float(np.abs(a - b).max(initial=0.0))
    return Difference(absolute, absolute / max(float(np.abs(b).max(initial=0.0)), 1e-30))


def _check(worst: Difference, source: Arrays, tolerance: float, problem: str) -> None:
    scale = max(1.0, *(float(np.abs(v.astype(np.float64)).max(initial=0.0)) for v in source.values()))
    if worst.absolute > tolerance * scale:
        raise _refused(
            f"{problem}: largest error {worst.absolute:.3g} (relative {worst.relative:.3g}), "
            f"tolerance {tolerance:g} at values up to {scale:.3g}",
            "Look for training mode, other weights (EMA), constants from tracing, or lost precision",
        )


def _check_invariance(run_graph: Run, inputs: Arrays, together: Arrays, rows: int, tolerance: float) -> bool:
    """Whether every row has the same bits alone and among its neighbours."""
    single = [run_graph(_rows(inputs, slice(i, i + 1))) for i in range(rows)]
    alone = {name: np.concatenate([row[name] for row in single]) for name in together}
    _check(
        compare(together, alone, "rows alone"),
        alone,
        tolerance,
        "rows depend on their neighbours in the batch",
    )
    return all(value.tobytes() == alone[name].tobytes() for name, value in together.items())


def _refused(problem: str, fix: str) -> PackageError:
    return PackageError(Reason.PARITY, "parity", problem, fix)
