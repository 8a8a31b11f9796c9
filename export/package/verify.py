"""Is the graph the network it was exported from? Compared on given inputs, at several batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from export.package.errors import PackageError, Reason
from export.package.schema import Parity

Arrays = Mapping[str, npt.NDArray[np.generic]]
Run = Callable[[Arrays], Arrays]

ROWS = (1, 2, 3, 8)
TOLERANCE = 1e-4
# Weights of 11 or 8 bits: runtimes round between operators in different places, by a few tens of units.
TOLERANCES = {"float32": TOLERANCE, "float16": 1e-2, "bfloat16": 8e-2}


Errors = dict[str, float]  # output -> largest absolute error


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

    The error of an output may be ``tolerance`` times its largest absolute value (at least 1). Rows must
    not depend on their neighbours: the graph, run row by row, must agree with itself likewise.
    Raises PackageError (PARITY): an error above tolerance, other names or shapes, NaN or infinity, fewer
    input rows than ``rows`` asks for.
    """
    total = min(len(value) for value in inputs.values() if value.ndim)
    if max(rows) > total:
        raise refused(f"{total} input rows, but batches of {max(rows)}", "Give more input rows")
    scales = _largest(run_source(_first(inputs, max(rows))))
    errors, outputs = dict.fromkeys(scales, 0.0), {}
    for count in sorted(rows):
        outputs[count] = run_graph(_first(inputs, count))
        found = compare(outputs[count], run_source(_first(inputs, count)), f"batch of {count}")
        errors = {name: max(error, found[name]) for name, error in errors.items()}
    _check(errors, scales, tolerance, "the graph is not the network it was exported from")
    sizes = ", ".join(map(str, sorted(rows)))
    return Parity(
        max_abs_error=max(errors.values()),
        max_rel_error=max(error / max(scales[name], 1e-30) for name, error in errors.items()),
        inputs=f"{described}; batches of {sizes} rows",
        batch_invariant=_check_invariance(run_graph, inputs, outputs[max(rows)], tolerance),
    )


def _first(inputs: Arrays, rows: int) -> Arrays:
    return _rows(inputs, slice(0, rows))


def _rows(inputs: Arrays, rows: slice) -> Arrays:
    """These rows of every input; scalars belong to all of them."""
    return {name: value[rows] if value.ndim else value for name, value in inputs.items()}


def _largest(outputs: Arrays) -> Errors:
    """The largest absolute value of each output."""
    return {name: float(np.abs(v.astype(np.float64)).max(initial=0.0)) for name, v in outputs.items()}


def compare(found: Arrays, wanted: Arrays, what: str) -> Errors:
    """The largest absolute error of each output; PackageError (PARITY) where they cannot be compared."""
    if set(found) != set(wanted):
        raise refused(f"{what}: outputs {sorted(found)}, not {sorted(wanted)}", "Export the graph again")
    for name, value in wanted.items():
        if found[name].shape != value.shape:
            raise refused(
                f"{what}: {name} is {list(found[name].shape)}, not {list(value.shape)}",
                "Export with a dynamic batch",
            )
    return {name: _error(f"{what}: {{}} {name}", found[name], value) for name, value in wanted.items()}


def _error(what: str, found: npt.NDArray[np.generic], wanted: npt.NDArray[np.generic]) -> float:
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    for values, side in ((b, "the source's"), (a, "the graph's")):
        if not np.isfinite(values).all():
            raise refused(f"{what.format(side)} has NaN or infinity", "Check the weights and the inputs")
    return float(np.abs(a - b).max(initial=0.0))


def _check(errors: Errors, scales: Errors, tolerance: float, problem: str) -> None:
    for name, error in errors.items():
        if error > tolerance * max(1.0, scales[name]):
            raise refused(
                f"{problem}: {name} differs by {error:.3g}, values up to {scales[name]:.3g}, "
                f"tolerance {tolerance:g}",
                "Look for training mode, other weights (EMA), constants from tracing, or lost precision",
            )


def _check_invariance(run_graph: Run, inputs: Arrays, together: Arrays, tolerance: float) -> bool:
    """Whether every row has the same bits alone and among its neighbours."""
    rows = len(next(iter(together.values())))
    single = [run_graph(_rows(inputs, slice(i, i + 1))) for i in range(rows)]
    alone = {name: np.concatenate([row[name] for row in single]) for name in together}
    errors = compare(together, alone, "rows alone")
    _check(errors, _largest(alone), tolerance, "rows depend on their neighbours in the batch")
    return all(value.tobytes() == alone[name].tobytes() for name, value in together.items())


def refused(problem: str, fix: str) -> PackageError:
    """A refusal with the reason PARITY."""
    return PackageError(Reason.PARITY, "parity", problem, fix)
