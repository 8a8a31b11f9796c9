"""A small model beside a large one that never stops asking."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.engines import MODELS, Loaded, add, engine_with, seconds_per_run
from tests.benchmarks.figures import Figure

TITLE = "A small model beside a saturated large one"
NOTE = (
    "digits-diffusion (DDIM, 50 steps, one image at a time) beside the 35.7M U-Net kept busy with 8 rows; "
    "allowed: twice its 95th percentile alone plus one run of the large network."
)
REQUESTS = 40


def run(large: Path) -> list[Figure]:
    """The 95th percentile beside the large model, over what is allowed."""
    with engine_with(MODELS / "digits-diffusion" / "1") as small:
        alone = latencies(small, REQUESTS)
        big = Loaded(small.engine, add(small.engine, large))
        tick_s = seconds_per_run(big.network, 8, repeats=5)
        stop = threading.Event()
        busy = threading.Thread(target=saturate, args=(big, stop))
        busy.start()
        time.sleep(2 * tick_s)
        beside = latencies(small, REQUESTS)
        stop.set()
        busy.join()
    allowed = 2 * float(np.percentile(alone, 95)) + tick_s
    return [
        Figure(TITLE, "95th percentile over the allowed", p95(beside) / allowed, 1.0, "at most", "x", NOTE)
    ]


def latencies(loaded: Loaded, count: int) -> list[float]:
    """One request after the other."""
    taken = []
    for seed in range(count):
        ticket = loaded.submit(loaded.sample("ddim", 50, 1, seed))
        ticket.done.wait()
        taken.append(ticket.latency_s)
    return taken


def saturate(loaded: Loaded, stop: threading.Event) -> None:
    """Eight rows at all times."""
    while not stop.is_set():
        ticket = loaded.submit(loaded.sample("ddim", 4, 8))
        ticket.done.wait()


def p95(values: list[float]) -> float:
    """The 95th percentile."""
    return float(np.percentile(values, 95))
