"""Served throughput over the bare network loop at the same batch, in interleaved rounds."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from tests.benchmarks.engines import MODELS, Loaded, engine_with, seconds_per_run
from tests.benchmarks.figures import Figure

TITLE = "Served throughput over the bare network loop"
ROUNDS = 5


def run(large: Path | None) -> list[Figure]:
    """Digits at 64 rows and at one; the 35.7M U-Net at 8."""
    figures = []
    with engine_with(MODELS / "digits-diffusion" / "1") as loaded:
        for rows, target in ((64, 0.90), (1, 0.85)):
            figures.append(_figure(loaded, f"digits U-Net, {rows} rows", rows, 100, target))
    if large is not None:
        with engine_with(large, max_rows=8) as loaded:
            figures.append(_figure(loaded, "35.7M U-Net 32x32, 8 rows", 8, 4, 0.97))
    return figures


def _figure(loaded: Loaded, name: str, rows: int, steps: int, target: float) -> Figure:
    ratios = [served_over_bare(loaded, rows, steps) for _ in range(ROUNDS)]
    return Figure(TITLE, name, float(np.median(ratios)), target, "at least", "x")


def served_over_bare(loaded: Loaded, rows: int, steps: int) -> float:
    """Bare seconds of ``steps`` runs over the seconds that one request of as many steps takes."""
    bare_s = seconds_per_run(loaded.network, rows, min(steps, 30)) * steps
    begun = time.perf_counter()
    ticket = loaded.submit(loaded.sample("ddim", steps, rows))
    ticket.done.wait()
    return bare_s / (time.perf_counter() - begun)
