"""``pxserve-server evaluate``: held-out figures by every method that applies, each with its target."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from serving.commands.dataset import Dataset, read_dataset
from serving.commands.offline import Offline, offline, request_of
from serving.engine.ticket import Ticket
from serving.families.capability import Method
from serving.families.request import Operation
from serving.families.result import Reconstructed, Scored

CHUNK_ROWS = 32


@dataclass(frozen=True)
class Figure:
    """A mean over held-out rows; ``standard_error`` is that of the mean over rows."""

    operation: str
    method: str
    kind: str
    target: str
    unit: str
    mean: float
    standard_error: float
    rows: int
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def evaluate(
    models: Path, name: str, version: int | None, data: Path, max_rows: int = 0, threads: int = 0
) -> list[Figure]:
    """Bits per dimension by every likelihood method, and the reconstruction error where there is one."""
    with offline(models, name, version, threads) as running:
        rows = read_dataset(data, running.package.spec)
        rows = rows[:max_rows] if max_rows else rows
        figures = [_likelihood(running, m, rows) for m in running.capability(Operation.LIKELIHOOD).methods]
        reconstruct = running.capability(Operation.RECONSTRUCT)
        if reconstruct.supported:
            figures.append(_reconstruction(running, reconstruct.default, rows))
    return [figure for figure in figures if figure is not None]


def _likelihood(running: Offline, method: Method, rows: Dataset) -> Figure | None:
    if any(p.name == "surrogate_sigma" for p in method.parameters):
        return None  # a surrogate has no figure before somebody declares its sigma
    begun = time.monotonic()
    results = [ticket.result() for ticket in _submit(running, Operation.LIKELIHOOD, method, rows)]
    scored = [result for result in results if isinstance(result, Scored)]
    bits = np.concatenate([result.bits_per_dim for result in scored])
    first = scored[0]
    return _figure("likelihood", method.name, (first.kind.value, first.target, "bits/dim"), bits, begun)


def _reconstruction(running: Offline, method: Method, rows: Dataset) -> Figure:
    begun = time.monotonic()
    results = [ticket.result() for ticket in _submit(running, Operation.RECONSTRUCT, method, rows)]
    errors = np.concatenate([result.error for result in results if isinstance(result, Reconstructed)])
    return _figure("reconstruct", method.name, (method.kind.lower(), "", "rms, data units"), errors, begun)


def _submit(running: Offline, operation: Operation, method: Method, rows: Dataset) -> list[Ticket]:
    spec = running.package.spec
    return [
        running.submit(request_of(spec, operation, method, rows[start : start + CHUNK_ROWS], start))
        for start in range(0, len(rows), CHUNK_ROWS)
    ]


def _figure(
    operation: str, method: str, about: tuple[str, str, str], values: np.ndarray, begun_s: float
) -> Figure:
    kind, target, unit = about
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    seconds = time.monotonic() - begun_s
    return Figure(operation, method, kind, target, unit, float(values.mean()), error, len(values), seconds)
