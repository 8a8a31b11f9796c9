"""An under-batched device: a row costs the same in any batch, so that only the order of rows matters."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from serving.engine import ledger
from tests.benchmarks.engines import Loaded, engine_with, seconds_per_run
from tests.benchmarks.figures import Figure
from tests.benchmarks.mixed import Floats, Trace

TITLE = "An under-batched device: least remaining work first over first-come order"
NOTE = (
    "The 35.7M U-Net, up to 4 rows a run; steps drawn from 1, 2, 5, 10 (a tenth of the mixed load's, to stay "
    "short); one image each; Poisson arrivals at 90 % of capacity; the same arrivals in both orders."
)
STEPS = np.array([1, 2, 5, 10])
MAX_ROWS = 4
REQUESTS = 120
LOAD = 0.9


def run(large: Path) -> list[Figure]:
    """The 99th percentile of slowdown, ours over first-come order's."""
    with engine_with(large, max_rows=MAX_ROWS) as loaded:
        run_s = seconds_per_run(loaded.network, MAX_ROWS, repeats=5)
        alone_s = seconds_per_run(loaded.network, 1, repeats=5)
        trace = draw(LOAD * MAX_ROWS / run_s / float(STEPS.mean()), seed=4)
        ours = latencies(loaded, trace)
        with first_come():
            theirs = latencies(loaded, trace)
    alone = trace.steps * alone_s
    ratio = p99(ours / alone) / p99(theirs / alone)
    return [
        Figure(TITLE, "99th percentile of slowdown", ratio, 0.4, "at most", "x", NOTE),
        Figure(TITLE, "mean latency", float(ours.mean() / theirs.mean()), unit="x", note=NOTE),
    ]


def draw(rate_per_s: float, seed: int) -> Trace:
    """``REQUESTS`` Poisson arrivals."""
    rng = np.random.default_rng(seed)
    return Trace(np.cumsum(rng.exponential(1 / rate_per_s, REQUESTS)), rng.choice(STEPS, REQUESTS))


@contextlib.contextmanager
def first_come() -> Iterator[None]:
    """Waiting counts for so much more than remaining work that the oldest request always goes first."""
    kept, ledger.AGING = ledger.AGING, math.ldexp(1.0, 20)
    try:
        yield
    finally:
        ledger.AGING = kept


def latencies(loaded: Loaded, trace: Trace) -> Floats:
    """Seconds from each request's arrival to its answer."""
    begun, tickets = time.perf_counter(), []
    for index, (due, steps) in enumerate(zip(trace.due_s, trace.steps, strict=True)):
        time.sleep(max(0.0, begun + due - time.perf_counter()))
        ticket = loaded.submit(loaded.sample("ddim", int(steps), 1, index))
        ticket.arrived_s = begun + due
        tickets.append(ticket)
    for ticket in tickets:
        ticket.done.wait()
    return np.array([ticket.latency_s for ticket in tickets])


def p99(values: Floats) -> float:
    """The 99th percentile."""
    return float(np.percentile(values, 99))
