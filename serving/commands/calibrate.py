"""``pxserve-server calibrate``: what every anomaly method scores on rows that the model never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.package.schema import ModelSpec
from serving.commands.dataset import Dataset, read_dataset
from serving.commands.offline import Offline, calibration_path, offline, request_of
from serving.families.calibration import Calibration
from serving.families.capability import Method
from serving.families.request import Operation
from serving.families.result import Anomalies

CHUNK_ROWS = 64


def calibrate(models: Path, name: str, version: int | None, data: Path, threads: int = 0) -> Path:
    """Write ``calibration-VERSION.json`` beside the package; the path of the file.

    Every fourth row only centres the two-sided scores; the others are the calibration set, so that
    p-values are exactly super-uniform (see families/calibration.py).
    """
    with offline(models, name, version, threads) as running:
        rows = unconditional(read_dataset(data, running.package.spec), running.package.spec)
        centring = np.arange(len(rows)) % 4 == 0
        statistics: dict[str, NDArray[np.float64]] = {}
        centres: dict[str, NDArray[np.float64]] = {}
        for method in running.capability(Operation.SCORE_ANOMALY).methods:
            values = statistics_of(running, method, rows)
            statistics[method.name] = values[~centring]
            if running.two_sided(method.name):
                centres[method.name] = values[centring]
        path = calibration_path(running.package)
        Calibration.fit(running.package.digest, statistics, centres).write(path, running.package.digest)
        return path


def unconditional(rows: Dataset, spec: ModelSpec) -> Dataset:
    """Without the conditions that a request may leave out, as most requests will."""
    required = {c.name for c in spec.conditions if c.when_absent == "required"}
    kept = {name: values for name, values in rows.conditions.items() if name in required}
    return Dataset(rows.data, rows.lengths, kept)


def statistics_of(running: Offline, method: Method, rows: Dataset) -> NDArray[np.float64]:
    """The raw statistic of every row, chunk by chunk."""
    tickets = []
    for start in range(0, len(rows), CHUNK_ROWS):
        part = rows[start : start + CHUNK_ROWS]
        request = request_of(running.package.spec, Operation.SCORE_ANOMALY, method, part, start)
        tickets.append(running.statistics(request))
    results = [ticket.result() for ticket in tickets]
    return np.concatenate([result.score for result in results if isinstance(result, Anomalies)])
