"""Engines around real packages, and requests whose end is timed."""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from export.package.read import read_package
from serving.engine.engine import Engine
from serving.engine.messages import Event, Failed, Finished, ModelKey, Options
from serving.engine.model import LoadedModel
from serving.engine.ticket import Ticket
from serving.families.request import Operation, Request
from serving.runtime.network import Network

MODELS = Path("models")
numbers = itertools.count(1_000_000)


class Done:
    """An event that is set once, by one call of compiled code: the engine's thread pays for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.set = self._lock.release

    def wait(self) -> None:
        """Until it is set."""
        with self._lock:
            return


class Timed(Ticket):
    """A ticket that notes when its request ended."""

    def __init__(self, engine: Engine, arrived_s: float) -> None:
        super().__init__(next(numbers), engine.cancel)
        self.arrived_s = arrived_s
        self.ended_s = float("nan")
        self.error: Exception | None = None
        self.done = Done()

    def post(self, event: Event) -> None:
        if isinstance(event, Finished | Failed):
            self.ended_s = time.perf_counter()
            self.error = event.error if isinstance(event, Failed) else None
            self.done.set()

    @property
    def latency_s(self) -> float:
        """From arrival to the last event."""
        return self.ended_s - self.arrived_s


@dataclass
class Loaded:
    """An engine with one model of interest."""

    engine: Engine
    model: LoadedModel

    @property
    def network(self) -> Network:
        """The denoiser."""
        lane = self.engine._models[self.model.key].lanes["denoiser"]
        network: Network = lane._network  # type: ignore[attr-defined]
        return network

    def ticket(self) -> Timed:
        """Of a request that arrives now."""
        return Timed(self.engine, time.perf_counter())

    def submit(self, request: Request, deadline_s: float | None = None, ticket: Timed | None = None) -> Timed:
        """Submit now."""
        ticket = ticket or self.ticket()
        self.engine.submit(self.model.key, request, Options(deadline_s=deadline_s), ticket=ticket)
        return ticket

    def sample(self, sampler: str, steps: int, rows: int = 1, seed: int = 0) -> Request:
        """A request for samples at the sampler's defaults."""
        method = next(m for m in self.model.capabilities[0].methods if m.name == sampler)
        defaults = {p.name: p.default for p in method.parameters if p.default is not None}
        conditions = {c.name: np.full(rows, c.null_value or 0, np.int64) for c in self.model.spec.conditions}
        parameters = {**defaults, "steps": steps}
        return Request(Operation.SAMPLE, sampler, parameters, seed, 0, rows, conditions=conditions)


@contextlib.contextmanager
def engine_with(folder: Path, max_rows: int = 64) -> Iterator[Loaded]:
    """A started engine that serves the package in ``folder`` (NAME/VERSION)."""
    engine = Engine(threads=torch.get_num_threads(), max_rows=max_rows, queue_rows=1 << 20)
    engine.start()
    gc.freeze()  # as the server does
    try:
        yield Loaded(engine, add(engine, folder))
    finally:
        engine.stop()


def add(engine: Engine, folder: Path) -> LoadedModel:
    """Serve one more package."""
    package = read_package(folder)
    return engine.load(ModelKey(package.spec.name, package.version), package)


def seconds_per_run(network: Network, rows: int, repeats: int = 30) -> float:
    """Median duration of a bare network run over bound buffers."""
    binding = network.binding(())
    binding.run(rows)
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        binding.run(rows)
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


def seconds_by_rows(network: Network, counts: Sequence[int], rounds: int = 15) -> dict[int, float]:
    """Median duration of bare runs by row count, interleaved: slow phases of the machine hit all."""
    times: dict[int, list[float]] = {rows: [] for rows in counts}
    for _ in range(rounds):
        for rows in counts:
            times[rows].append(seconds_per_run(network, rows, repeats=3))
    return {rows: float(np.median(taken)) for rows, taken in times.items()}
