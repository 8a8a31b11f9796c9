"""``make sizing``: what each reference model asks of one core, written into docs/operations.md."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from deploy.demo.server import Running, free_port, stop, wait_until_ready
from pxserve import AsyncClient
from tests.benchmarks.engines import MODELS
from tests.benchmarks.figures import machine
from tests.reliability.observed import footprint, metric

PAGE = Path("docs/operations.md")
DATA = Path("docs/sizing.json")
BEGIN, END = "<!-- begin: written by `make sizing` -->", "<!-- end: written by `make sizing` -->"
SECONDS = 2.5
MANY, WIDE = 32, 64  # requests of one row at once; rows of one large request
FLIGHT = 512  # rows in flight, to see what one costs
DIGITS = np.random.default_rng(0).integers(0, 17, (FLIGHT, 1, 8, 8)).astype(np.uint8)

Ask = Callable[[AsyncClient, int, int], Coroutine[Any, Any, Any]]


@dataclass(frozen=True)
class Size:
    """One model on one core."""

    model: str
    asked: str
    requests_per_s: float  # of one row, 32 at once
    rows_per_s: float  # 64 rows a request, two at once
    alone_ms: float  # median latency of one row on an idle server
    model_mib: float  # above a server without models
    row_kib: float  # more resident memory per row in flight
    ready_s: float  # from the start of the process to SERVING
    warm_s: float  # of that, reading, opening and warming the model


def _sample(model: str, **options: Any) -> Ask:
    return lambda client, n, seed: client.sample(model, n, seed=seed, **options)


ASKED: dict[str, tuple[str, Ask]] = {
    "digits-autoregressive": ("sample, 64 symbols", _sample("digits-autoregressive")),
    "digits-pixelcnn": ("sample, 64 symbols", _sample("digits-pixelcnn")),
    "text-autoregressive": (
        "sample, 64 bytes",
        _sample("text-autoregressive", prompt="The ", max_new_tokens=64),
    ),
    "digits-autoencoder": (
        "reconstruct",
        lambda client, n, seed: client.reconstruct("digits-autoencoder", DIGITS[:n]),
    ),
    "digits-vae": ("sample", _sample("digits-vae")),
    "digits-gan": ("sample", _sample("digits-gan")),
    "digits-diffusion": (
        "sample, DDIM, 50 steps",
        _sample("digits-diffusion", sampler="ddim", steps=50, label=3),
    ),
    "digits-score": ("sample, 100 steps", _sample("digits-score", steps=100)),
    "digits-flow": ("sample, Euler, 50 steps", _sample("digits-flow", sampler="euler", steps=50)),
}


def served(models: Path) -> Running:
    """A server on the first core alone, with one thread."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    command = [
        sys.executable,
        "-m",
        "serving",
        "--models",
        str(models),
        "--threads",
        "1",
        "--log-level",
        "warning",
    ]
    begun = time.monotonic()
    process = subprocess.Popen([*command, "--listen", addresses[0], "--metrics", addresses[1]])
    psutil.Process(process.pid).cpu_affinity([min(os.sched_getaffinity(0))])
    return Running(addresses[0], addresses[1], begun, process)


def empty_mib() -> float:
    """Memory of a server that has imported everything and serves nothing."""
    with tempfile.TemporaryDirectory() as folder:
        running = served(Path(folder))
        time.sleep(12.0)
        found = footprint(running).memory_mib
        stop(running.process)
    return found


def measured(model: str, base_mib: float) -> Size:
    """One model alone in a server."""
    asked, ask = ASKED[model]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(MODELS / model, Path(folder) / model)
        running = served(Path(folder))
        try:
            wait_until_ready(running.target, running.process)
            ready_s = time.monotonic() - running.start_s
            model_mib = footprint(running).memory_mib - base_mib
            alone_s, requests, rows, row_mib = asyncio.run(_loads(running, ask))
            warm_s = metric(running, "pxserve_load_seconds")
        finally:
            stop(running.process)
    return Size(model, asked, requests, rows, alone_s * 1e3, model_mib, row_mib * 1024, ready_s, warm_s)


async def _loads(running: Running, ask: Ask) -> tuple[float, float, float, float]:
    async with AsyncClient(running.target, timeout_s=120.0) as client:
        await ask(client, 1, 0)
        alone = [await _timed(ask, client, seed) for seed in range(9)]
        before = footprint(running).memory_mib
        growing = asyncio.create_task(_peak(running))
        await asyncio.gather(*(ask(client, WIDE, seed) for seed in range(FLIGHT // WIDE)))
        growing.cancel()
        peak = await asyncio.gather(growing, return_exceptions=True)
        gained = max(0.0, float(peak[0]) - before) if isinstance(peak[0], float) else 0.0
        requests = await _rate(ask, client, 1, MANY)
        rows = WIDE * await _rate(ask, client, WIDE, 2)
    return float(np.median(alone)), requests, rows, gained / FLIGHT


async def _timed(ask: Ask, client: AsyncClient, seed: int) -> float:
    begun = time.perf_counter()
    await ask(client, 1, seed)
    return time.perf_counter() - begun


async def _rate(ask: Ask, client: AsyncClient, rows: int, at_once: int) -> float:
    """Requests per second in a closed loop."""
    begun, done = time.perf_counter(), 0

    async def keep_asking(seed: int) -> None:
        nonlocal done
        while time.perf_counter() - begun < SECONDS:
            await ask(client, rows, seed)
            seed, done = seed + 1000, done + 1

    await asyncio.gather(*(keep_asking(k) for k in range(at_once)))
    return done / (time.perf_counter() - begun)


async def _peak(running: Running) -> float:
    found = 0.0
    try:
        while True:
            found = max(found, footprint(running).memory_mib)
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        return found


def write(base_mib: float, sizes: list[Size]) -> None:
    """JSON, and the table in the runbook."""
    document = {"machine": machine(), "empty_mib": base_mib, "models": [asdict(size) for size in sizes]}
    DATA.write_text(json.dumps(document, indent=1) + "\n")
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(document)}\n{END}{rest.split(END)[1]}")


def table(document: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| model | asked | requests/s, one row each, 32 at once | rows/s, 64 a request | one row alone | "
        "memory | memory per row in flight | process start to SERVING | of that, the model |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in document["models"]:
        size = Size(**entry)
        lines.append(
            f"| `{size.model}` | {size.asked} | {size.requests_per_s:.3g} | {size.rows_per_s:.3g} | "
            f"{size.alone_ms:.3g} ms | {size.model_mib:.0f} MiB | {size.row_kib:.0f} KiB | "
            f"{size.ready_s:.1f} s | {size.warm_s:.1f} s |"
        )
    lines += [
        "",
        f"Server on one core (`--threads 1`), client on another; a server without models holds "
        f"{document['empty_mib']:.0f} MiB. Machine: {document['machine']}. `make sizing` measures again.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure all models, or those named (and then write nothing)."""
    base_mib = empty_mib()
    sizes = []
    for model in sys.argv[1:] or ASKED:
        sizes.append(measured(model, base_mib))
        sys.stdout.write(f"{sizes[-1]}\n")
        sys.stdout.flush()
    if not sys.argv[1:]:
        write(base_mib, sizes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
