"""The engine's own time per tick: everything but the network run."""

from __future__ import annotations

import time

import numpy as np
import torch

from serving.engine.messages import Options
from tests.benchmarks.engines import MODELS, Loaded, add
from tests.benchmarks.figures import Figure

TITLE = "The engine's own time per tick"
TICKS = 96


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
    """Median over ticks of the tick's duration less its network run's."""
    worker, network = loaded.engine._worker, loaded.network
    binding = network.binding(())
    tickets = [
        loaded.engine.submit(loaded.model.key, loaded.sample(sampler, TICKS + 20, 1, seed), Options())
        for seed in range(rows)
    ]
    spent: list[float] = []
    original = binding.run

    def timed(count: int) -> None:
        begun = time.perf_counter()
        original(count)
        spent.append(time.perf_counter() - begun)

    own = []
    with torch.inference_mode():
        worker._between_ticks()
        setattr(binding, "run", timed)  # noqa: B010
        for _ in range(TICKS):
            begun = time.perf_counter()
            worker._between_ticks()
            lane = worker._turns.choose(worker._lanes)
            assert lane is not None
            worker._tick(lane)
            own.append(time.perf_counter() - begun - spent[-1])
        setattr(binding, "run", original)  # noqa: B010
        for ticket in tickets:
            worker.cancel(ticket.number)
    return float(np.median(own)) * 1e6
