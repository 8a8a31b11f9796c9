"""Sampling with a progress bar: the stream's rows put together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from pxserve.arrays import Array
from pxserve.client import Client
from pxserve.errors import PxserveError
from pxserve.results import Progress, Row, Samples, Summary


def draw(client: Client, model: str, keywords: dict[str, Any], *, quiet: bool) -> Samples:
    """As ``client.sample``, showing steps done on stderr unless ``quiet``."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    rows: dict[int, Row] = {}
    summary: Samples | None = None
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task(f"sample {model}", total=None)
        for event in client.stream_sample(model, **keywords):
            match event:
                case Progress():
                    state = "queued" if event.queued else f"sample {model}"
                    bar.update(task, completed=event.steps_done, total=event.steps_total, description=state)
                case Row():
                    rows[event.row] = event
                case Summary():
                    summary = event.result
    if summary is None:
        raise PxserveError(grpc.StatusCode.INTERNAL, "the stream ended without its summary")
    return _assembled(summary, [rows[row] for row in sorted(rows)])


def _assembled(summary: Samples, rows: list[Row]) -> Samples:
    texts = tuple(row.text for row in rows) if any(row.text for row in rows) else ()
    lengths = {len(row.data) if row.data.ndim else 0 for row in rows}
    if len(lengths) <= 1:
        data = np.stack([row.data for row in rows]) if rows else summary.data
        return replace(summary, data=data, text=texts)
    counts = np.array([len(row.data) for row in rows], np.int64)
    return replace(summary, data=_padded(rows, int(counts.max())), text=texts, lengths=counts)


def _padded(rows: list[Row], longest: int) -> Array:
    padded = np.zeros((len(rows), longest, *rows[0].data.shape[1:]), rows[0].data.dtype)
    for index, row in enumerate(rows):
        padded[index, : len(row.data)] = row.data
    return padded
