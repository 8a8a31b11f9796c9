"""Arrivals and the requests that they bring."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pxserve.aio import AsyncClient
from pxserve.errors import PxserveError


@dataclass(frozen=True)
class Workload:
    """``rate_per_s`` requests for ``duration_s``; every choice is drawn from ``seed``.

    ``operations`` are names of client methods that need no data (``sample``) or score ``data`` [rows, ...]
    (``likelihood``, ``encode``, ``reconstruct``, ``score_anomaly``). ``steps`` and ``rows`` are drawn
    uniformly from their choices; ``deadline_s`` 0 sends none.
    """

    model: str
    rate_per_s: float
    duration_s: float
    arrivals: Literal["poisson", "fixed"] = "poisson"
    operations: tuple[str, ...] = ("sample",)
    steps: tuple[int, ...] = ()
    rows: tuple[int, ...] = (1,)
    sampler: str | None = None
    deadline_s: float = 0.0
    data: NDArray[np.generic] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """One request's fate; times in seconds from the start of the load."""

    operation: str
    steps: int
    rows: int
    sent_s: float
    took_s: float
    code: str  # "OK", or the status that came instead
    device_s: float = 0.0


async def run(client: AsyncClient, workload: Workload) -> list[Answer]:
    """Send the whole load, whatever the server answers; returns when every answer is in."""
    rng = np.random.default_rng(workload.seed)
    begun_s = time.perf_counter()
    tasks = []
    for index, due_s in enumerate(arrivals(workload, rng)):
        call = _draw(workload, rng, index)
        await asyncio.sleep(max(0.0, begun_s + due_s - time.perf_counter()))
        tasks.append(asyncio.create_task(_ask(client, workload, call, begun_s)))
    return list(await asyncio.gather(*tasks))


def arrivals(workload: Workload, rng: np.random.Generator) -> NDArray[np.float64]:
    """Arrival times in [0, duration_s), ascending."""
    if workload.arrivals == "fixed":
        return np.arange(0.0, workload.duration_s, 1.0 / workload.rate_per_s)
    count = rng.poisson(workload.rate_per_s * workload.duration_s)
    return np.sort(rng.uniform(0.0, workload.duration_s, count))


@dataclass(frozen=True)
class _Drawn:
    operation: str
    steps: int
    rows: int
    seed: int


def _draw(workload: Workload, rng: np.random.Generator, index: int) -> _Drawn:
    steps = int(rng.choice(workload.steps)) if workload.steps else 0
    return _Drawn(str(rng.choice(workload.operations)), steps, int(rng.choice(workload.rows)), index)


async def _ask(client: AsyncClient, workload: Workload, drawn: _Drawn, begun_s: float) -> Answer:
    sent_s = time.perf_counter() - begun_s
    try:
        result = await _call(client, workload, drawn)
    except PxserveError as error:
        code, device_s = error.code.name, 0.0
    else:
        code, device_s = "OK", float(result.provenance.device_seconds)
    took_s = time.perf_counter() - begun_s - sent_s
    return Answer(drawn.operation, drawn.steps, drawn.rows, sent_s, took_s, code, device_s)


async def _call(client: AsyncClient, workload: Workload, drawn: _Drawn) -> Any:
    common: dict[str, Any] = {"seed": drawn.seed}
    if workload.deadline_s:
        common["timeout_s"] = workload.deadline_s
    if drawn.steps:
        common["steps"] = drawn.steps
    if drawn.operation == "sample":
        return await client.sample(workload.model, drawn.rows, sampler=workload.sampler, **common)
    if workload.data is None:
        raise ValueError(f"{drawn.operation} needs data")
    rows = workload.data[np.arange(drawn.seed, drawn.seed + drawn.rows) % len(workload.data)]
    return await getattr(client, drawn.operation)(workload.model, rows, **common)
