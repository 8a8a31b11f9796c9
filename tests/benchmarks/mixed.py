"""Mixed load against request-level batching that groups equal step counts, on the same arrivals."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tests.benchmarks.engines import MODELS, Loaded, engine_with, seconds_by_rows
from tests.benchmarks.figures import Figure

TITLE = "Mixed load: step-level batching over request-level batching"
NOTE = (
    "Steps drawn from 10, 25, 50, 100; one image each; Poisson arrivals at 80 % of capacity; "
    "digits-diffusion, DDIM. The opponent runs the same network and the same update for a whole batch of "
    "requests with equal step counts (oldest first, up to 64), as a server around a pipeline does. Ratios "
    "are ours over the opponent's, medians of rounds with a capacity and arrivals of their own."
)
TARGETS: dict[str, tuple[float, Literal["at least", "at most"]]] = {
    "throughput (theirs to the last answer, over ours)": (1.0, "at least"),
    "mean latency": (0.5, "at most"),
    "95th percentile": (0.73, "at most"),
    "95th percentile of slowdown": (0.2, "at most"),
    "95th percentile of the 10-step requests": (0.125, "at most"),
    "mean latency over an ideal simulation's": (1.2, "at most"),
}
STEPS = np.array([10, 25, 50, 100])
MAX_ROWS = 64
FITTED_ROWS = (1, 4, 8, 16, 24, 32, 40, 48, 56, 64)  # costs bend between one and many: least squares over all
Floats = NDArray[np.float64]
DURATION_S, ROUNDS = 8.0, 7


@dataclass(frozen=True)
class Trace:
    """Arrival times and step counts."""

    due_s: NDArray[np.float64]
    steps: NDArray[np.int64]


@dataclass(frozen=True)
class Costs:
    """seconds = base + per_row * rows, of a bare run and its update."""

    base_s: float
    per_row_s: float

    def run_s(self, rows: int) -> float:
        """One tick."""
        return self.base_s + self.per_row_s * rows


def run() -> list[Figure]:
    """Both servers on the same arrivals, and the ideal simulation; the median of several rounds."""
    with engine_with(MODELS / "digits-diffusion" / "1") as loaded:
        rounds = [compared(loaded, seed) for seed in range(ROUNDS)]
    medians = {name: float(np.median([ratios[name] for ratios in rounds])) for name in TARGETS}
    return [Figure(TITLE, name, medians[name], *target, "x", NOTE) for name, target in TARGETS.items()]


def compared(loaded: Loaded, seed: int) -> dict[str, float]:
    """A round: the machine's speed moves, so that a capacity holds for seconds only."""
    costs = measured_costs(loaded)
    rate = 0.8 * MAX_ROWS / costs.run_s(MAX_ROWS) / STEPS.mean()
    trace = draw(rate, DURATION_S, seed)
    theirs = opponent(loaded, trace)
    return ratios(trace, costs, served(loaded, trace), theirs, ideal(trace, costs))


def measured_costs(loaded: Loaded) -> Costs:
    """Least squares over bare runs of one to many rows."""
    measured = seconds_by_rows(loaded.network, FITTED_ROWS)
    per_row_s, base_s = np.polyfit(list(measured), list(measured.values()), 1)
    return Costs(max(0.0, float(base_s)), float(per_row_s))


def draw(rate_per_s: float, duration_s: float, seed: int) -> Trace:
    """Poisson arrivals."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(rate_per_s * duration_s)
    return Trace(np.sort(rng.uniform(0, duration_s, count)), rng.choice(STEPS, count))


def served(loaded: Loaded, trace: Trace) -> Floats:
    """Latencies of our engine. Requests are written before: that is their senders' work."""
    requests = [loaded.sample("ddim", int(steps), 1, index) for index, steps in enumerate(trace.steps)]
    tickets = [loaded.ticket() for _ in requests]
    begun = time.perf_counter()
    for due, request, ticket in zip(trace.due_s, requests, tickets, strict=True):
        time.sleep(max(0.0, begun + due - time.perf_counter()))
        loaded.submit(request, ticket=ticket)
        ticket.arrived_s = begun + due
    for ticket in tickets:
        ticket.done.wait()
    return np.array([ticket.latency_s for ticket in tickets])


def opponent(loaded: Loaded, trace: Trace) -> Floats:
    """Latencies of request-level batching: the whole loop for a group of equal step counts."""
    waiting: deque[int] = deque()
    arrived = threading.Condition()
    ended = np.full(len(trace.steps), np.nan)
    begun = time.perf_counter()

    def feed() -> None:
        for index, due in enumerate(trace.due_s):
            time.sleep(max(0.0, begun + due - time.perf_counter()))
            with arrived:
                waiting.append(index)
                arrived.notify()

    feeder = threading.Thread(target=feed)
    feeder.start()
    for _ in range(len(trace.steps)):
        with arrived:
            while not waiting and np.isnan(ended).any():
                arrived.wait(0.1)
            if not waiting:
                break
            steps = trace.steps[waiting[0]]
            group = [i for i in waiting if trace.steps[i] == steps][:MAX_ROWS]
            for index in group:
                waiting.remove(index)
        pipeline(loaded, len(group), int(steps))
        ended[group] = time.perf_counter() - begun
    feeder.join()
    return ended - trace.due_s


def pipeline(loaded: Loaded, rows: int, steps: int) -> torch.Tensor:
    """A plain DDIM loop: the network on bound buffers and a two-term update."""
    binding = loaded.network.binding(())
    x = torch.randn(rows, *loaded.model.spec.data.shape)
    binding.inputs["label"][:rows] = 10
    for step in range(steps):
        binding.inputs["x"][:rows].copy_(x)
        binding.inputs["t"][:rows] = float(steps - step)
        binding.run(rows)
        x = torch.clamp(0.999 * x - 0.01 * binding.outputs["prediction"][:rows], -4, 4)
    return x


def ideal(trace: Trace, costs: Costs) -> Floats:
    """A server without overhead: every tick runs up to 64 rows, least remaining work first."""
    left = trace.steps.astype(np.int64).copy()
    ended = np.full(len(left), np.nan)
    now, nxt = 0.0, 0
    active: list[int] = []
    while nxt < len(left) or active:
        if not active:
            now = max(now, float(trace.due_s[nxt]))
        while nxt < len(left) and trace.due_s[nxt] <= now:
            active.append(nxt)
            nxt += 1
        chosen = sorted(active, key=lambda i: int(left[i]))[:MAX_ROWS]
        now += costs.run_s(len(chosen))
        left[chosen] -= 1
        for index in [i for i in chosen if left[i] == 0]:
            ended[index] = now
            active.remove(index)
    return ended - trace.due_s


def ratios(trace: Trace, costs: Costs, ours: Floats, theirs: Floats, best: Floats) -> dict[str, float]:
    """What the targets are about."""
    alone = trace.steps * costs.run_s(1)
    short = trace.steps == 10
    values = (
        _span(trace, theirs) / _span(trace, ours),
        float(ours.mean() / theirs.mean()),
        p95(ours) / p95(theirs),
        p95(ours / alone) / p95(theirs / alone),
        p95(ours[short]) / p95(theirs[short]),
        float(ours.mean() / best.mean()),
    )
    return dict(zip(TARGETS, values, strict=True))


def p95(values: Floats) -> float:
    """The 95th percentile."""
    return float(np.percentile(values, 95))


def _span(trace: Trace, latency: Floats) -> float:
    return float((trace.due_s + latency).max())
