"""The engine's own time per tick: everything but the network run."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from serving.engine.messages import Options
from tests.benchmarks.engines import MODELS, Loaded, add
from tests.benchmarks.figures import Figure

TITLE = "The engine's own time per tick"
STEPS = 1000  # of every request, of which a fifth is left, so that none ends meanwhile
TURNS = 24


def run() -> list[Figure]:
    """At 64 one-row requests of digits-diffusion; and at one."""
    from serving.engine.engine import Engine

    engine = Engine(threads=torch.get_num_threads(), queue_rows=1 << 20)
    loaded = Loaded(engine, add(engine, MODELS / "digits-diffusion" / "1"))
    cases = (("ddim", 64, 150.0), ("ddpm", 64, 250.0), ("ddim", 1, None), ("ddpm", 1, None))
    return [
        Figure(TITLE, f"{name}, {rows} rows", own_us(loaded, name, rows), target, "at most", "µs")
        for name, rows, target in cases
    ]


def own_us(loaded: Loaded, sampler: str, rows: int) -> float:
    """Median over the engine's turns: their duration less the network runs', per run."""
    worker, network = loaded.engine._worker, loaded.network
    binding = network.binding(())
    tickets = [
        loaded.engine.submit(loaded.model.key, loaded.sample(sampler, STEPS, 1, seed), Options())
        for seed in range(rows)
    ]
    spent: list[float] = []
    run, bound = binding.run, binding.bound

    def timed(work: Callable[[], object]) -> None:
        begun = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begun)

    own: list[float] = []
    steps = 0
    with torch.inference_mode():
        worker._between_ticks()
        setattr(binding, "run", lambda count: timed(partial(run, count)))  # noqa: B010
        setattr(binding, "bound", lambda count: partial(timed, bound(count)))  # noqa: B010
        while len(own) < TURNS and steps < 0.8 * STEPS:
            spent.clear()
            begun = time.perf_counter()
            worker._between_ticks()
            lane = worker._turns.choose(worker._lanes)
            assert lane is not None
            worker._tick(lane)  # one run, and the same again while nothing else happens
            own.append((time.perf_counter() - begun - sum(spent)) / len(spent))
            steps += len(spent)
        setattr(binding, "run", run)  # noqa: B010
        setattr(binding, "bound", bound)  # noqa: B010
        for ticket in tickets:
            worker.cancel(ticket.number)
    return float(np.median(own)) * 1e6
