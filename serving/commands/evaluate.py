"""``pxserve-server evaluate``: held-out figures by every method that applies, each with its target."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from serving.commands.dataset import Dataset, read_dataset
from serving.commands.offline import Offline, offline, request_of
from serving.errors import invalid
from serving.families.capability import Method
from serving.families.request import Operation, Request, Value
from serving.families.result import Reconstructed, Result, Scored

CHUNK_ROWS = 32


@dataclass(frozen=True)
class Wanted:
    """What to measure: the first ``rows`` (0: all) by ``methods`` (empty: all, of both operations).

    ``parameters`` replace the defaults of the methods that list them; a surrogate likelihood is measured only
    where they declare ``surrogate_sigma``.
    """

    rows: int = 0
    methods: tuple[str, ...] = ()
    parameters: Mapping[str, Value] = field(default_factory=dict)

    def takes(self, method: Method) -> bool:
        """Whether this method is measured."""
        names = {p.name for p in method.parameters}
        undeclared = "surrogate_sigma" in names and "surrogate_sigma" not in self.parameters
        return not undeclared and (not self.methods or method.name in self.methods)

    def changed(self, method: Method) -> dict[str, Value]:
        """The parameters that this method lists."""
        return {p.name: self.parameters[p.name] for p in method.parameters if p.name in self.parameters}


@dataclass(frozen=True)
class Figure:
    """A mean over held-out rows; ``standard_error`` is that of the mean over rows.

    ``parameters`` are those that differ from the defaults; ``network_rows`` by component for one row.
    """

    operation: str
    method: str
    kind: str
    target: str
    base_measure: str
    unit: str
    mean: float
    standard_error: float
    rows: int
    seconds: float
    parameters: Mapping[str, Value]
    network_rows: Mapping[str, int]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Run:
    running: Offline
    operation: Operation
    method: Method
    rows: Dataset
    changed: Mapping[str, Value]

    def request(self, start: int) -> Request:
        rows = self.rows[start : start + CHUNK_ROWS]
        spec = self.running.package.spec
        return request_of(spec, self.operation, self.method, rows, start, **self.changed)

    def network_rows(self) -> dict[str, int]:
        """For one row: what a chunk takes, divided."""
        request = self.request(0)
        return {name: n // request.rows for name, n in self.running.network_rows(request).items()}

    def results(self) -> list[Result]:
        submitted = [
            self.running.submit(self.request(start)) for start in range(0, len(self.rows), CHUNK_ROWS)
        ]
        return [ticket.result() for ticket in submitted]


def evaluate(
    models: Path, name: str, version: int | None, data: Path, wanted: Wanted | None = None, threads: int = 0
) -> list[Figure]:
    """Bits per dimension by every likelihood method, and reconstruction errors; INVALID_ARGUMENT for a
    method that the model lacks."""
    wanted = wanted or Wanted()
    with offline(models, name, version, threads) as running:
        rows = read_dataset(data, running.package.spec)
        rows = rows[: wanted.rows] if wanted.rows else rows
        runs = [
            _Run(running, operation, method, rows, wanted.changed(method))
            for operation in (Operation.LIKELIHOOD, Operation.RECONSTRUCT)
            for method in running.capability(operation).methods
        ]
        _check(wanted, [run.method for run in runs])
        return [_figure(run) for run in runs if wanted.takes(run.method)]


def _check(wanted: Wanted, methods: list[Method]) -> None:
    names = [method.name for method in methods]
    for name in wanted.methods:
        if name not in names:
            raise invalid("method", f"{name!r} is none of {', '.join(names)}")
    for name in wanted.parameters:
        if not any(name == p.name for method in methods for p in method.parameters):
            raise invalid(name, "no likelihood or reconstruction of this model has this parameter")


def _figure(run: _Run) -> Figure:
    begun_s = time.monotonic()
    results = run.results()
    kind, target, base, unit = _about(run, results[0])
    values = np.concatenate([_values(result) for result in results])
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return Figure(
        operation=run.operation.value,
        method=run.method.name,
        kind=kind,
        target=target,
        base_measure=base,
        unit=unit,
        mean=float(values.mean()),
        standard_error=error,
        rows=len(values),
        seconds=time.monotonic() - begun_s,
        parameters=run.changed,
        network_rows=run.network_rows(),
    )


def _about(run: _Run, first: Result) -> tuple[str, str, str, str]:
    if isinstance(first, Scored):
        return first.kind.value, first.target, first.base_measure.value, "bits/dim"
    return run.method.kind.lower(), "", "", "rms, data units"


def _values(result: Result) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    if isinstance(result, Scored):
        return result.bits_per_dim
    if isinstance(result, Reconstructed):
        return result.error
    raise TypeError(f"{type(result).__name__} holds no figure")
