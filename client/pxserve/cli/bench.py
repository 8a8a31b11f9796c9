"""``pxserve bench``: an open-loop load on one model."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pxserve.aio import AsyncClient
from pxserve.bench import Report, Workload, summarise
from pxserve.bench import run as send
from pxserve.cli.connect import connection

OPERATIONS = ("sample", "likelihood", "encode", "reconstruct", "score_anomaly")
BATCH = "pxserve_batch_rows"


def add_flags(bench: argparse.ArgumentParser) -> None:
    """The load's flags."""
    bench.add_argument("model", help="model name")
    bench.add_argument("--rate", type=float, default=10.0, metavar="PER_S", help="requests per second")
    bench.add_argument("--duration", type=float, default=10.0, metavar="S", help="seconds of load")
    bench.add_argument("--arrivals", choices=("poisson", "fixed"), default="poisson")
    bench.add_argument("--operation", nargs="+", choices=OPERATIONS, default=["sample"], help="drawn evenly")
    bench.add_argument("--steps", type=_integers, default=(), metavar="N,N,...", help="drawn evenly")
    bench.add_argument(
        "-n", "--n", type=_integers, default=(1,), metavar="N,N,...", help="rows, drawn evenly"
    )
    bench.add_argument("--sampler", help="sampler by name")
    bench.add_argument("--deadline-s", type=float, default=0.0, help="deadline of every request; 0: none")
    bench.add_argument("--data", type=Path, metavar="FILE.npy", help="rows for operations that score rows")
    bench.add_argument("--seed", type=int, default=0, help="of arrivals and choices")
    bench.add_argument("--metrics", metavar="HOST:PORT", help="the server's /metrics, for the achieved batch")
    bench.add_argument("--out", type=Path, metavar="FILE.json", help="also write the report as JSON")


def run(given: argparse.Namespace) -> int:
    """Send the load, print the report; 0 when anything was answered."""
    workload = Workload(
        model=given.model,
        rate_per_s=given.rate,
        duration_s=given.duration,
        arrivals=given.arrivals,
        operations=tuple(given.operation),
        steps=given.steps,
        rows=given.n,
        sampler=given.sampler,
        deadline_s=given.deadline_s,
        data=np.load(given.data) if given.data else None,
        seed=given.seed,
    )
    before = batches(given.metrics, given.model)
    report = asyncio.run(_send(given, workload))
    document = {**report.as_dict(), "achieved_batch": _achieved(before, batches(given.metrics, given.model))}
    text = json.dumps(document, indent=1)
    if given.out:
        given.out.write_text(text + "\n")
    if given.json:
        sys.stdout.write(text + "\n")
    else:
        show(report, document)
    return 0 if report.codes.get("OK") else 1


async def _send(given: argparse.Namespace, workload: Workload) -> Report:
    async with AsyncClient(given.target, **connection(given)) as client:
        return summarise(workload, await send(client, workload))


def show(report: Report, document: dict[str, Any]) -> None:
    """A table of the figures."""
    table = Table(title=f"{report.model}: {report.requests} requests in {report.seconds:.1f} s")
    table.add_column("figure")
    table.add_column("value", justify="right")
    rows = (
        ("answers", ", ".join(f"{count} {code}" for code, count in report.codes.items())),
        ("requests/s", f"{report.requests_per_s:.2f}"),
        ("rows/s", f"{report.rows_per_s:.2f}"),
        ("in time/s", f"{report.goodput_per_s:.2f}"),
        ("mean latency", f"{1e3 * report.mean_latency_s:.1f} ms"),
        *((f"latency {name}", f"{1e3 * value:.1f} ms") for name, value in report.latency_s.items()),
        ("achieved batch", f"{document['achieved_batch']:.1f} rows" if document["achieved_batch"] else "?"),
    )
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def batches(metrics: str | None, model: str) -> tuple[float, float]:
    """(network rows, network runs) that the server has counted for a model; zeros without metrics."""
    if metrics is None:
        return 0.0, 0.0
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5.0) as reply:
        lines = reply.read().decode().splitlines()
    mine = [line for line in lines if f'model="{model}"' in line]
    return _total(mine, f"{BATCH}_sum"), _total(mine, f"{BATCH}_count")


def _total(lines: Sequence[str], name: str) -> float:
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))


def _achieved(before: tuple[float, float], after: tuple[float, float]) -> float:
    runs = after[1] - before[1]
    return (after[0] - before[0]) / runs if runs else 0.0


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))
