"""Twice the capacity, with deadlines: what is admitted meets them, what is refused would not have."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.errors import ServingError
from tests.benchmarks.engines import MODELS, Loaded, Timed, engine_with
from tests.benchmarks.figures import Figure
from tests.benchmarks.mixed import MAX_ROWS, STEPS, Costs, Trace, draw, ideal, measured_costs

TITLE = "Overload at twice the capacity, with deadlines"
NOTE = (
    "Poisson arrivals at twice the capacity of digits-diffusion; every request has the same deadline. "
    "Whether a refused request would have met it, and made none of the admitted late, is judged by a "
    "simulation that admits it beside them: at the pace at which the server's runs followed one another "
    "meanwhile, and, to show what its own work and the clients' take, at the pace of bare runs."
)
DURATION_S = 15.0
DEADLINE_S = 1.5
JUDGED = 100


@dataclass(frozen=True)
class Outcome:
    """Which requests of the trace were admitted, and which of those were in time."""

    admitted: list[int]
    in_time: list[int]
    refusal_s: list[float]


def run() -> list[Figure]:
    """Share of the admitted in time, and share of the refused that could have been."""
    with engine_with(MODELS / "digits-diffusion" / "1") as loaded:
        costs = measured_costs(loaded)
        trace = draw(2.0 * MAX_ROWS / costs.run_s(MAX_ROWS) / STEPS.mean(), DURATION_S, seed=2)
        warm(loaded)
        slower, outcome = paced(loaded, trace, costs)
    met = len(outcome.in_time) / max(1, len(outcome.admitted))
    own = share_of_regret(trace, Costs(costs.base_s * slower, costs.per_row_s * slower), outcome)
    bare = share_of_regret(trace, costs, outcome)
    admitted = len(outcome.admitted) / len(trace.steps)
    return [
        Figure(TITLE, "admitted requests that met their deadline", met, 0.99, "at least", "", NOTE),
        Figure(TITLE, "refused requests that would have met it", own, 0.05, "at most", "", NOTE),
        Figure(TITLE, "the same at the pace of bare runs", bare, note=NOTE),
        Figure(TITLE, "time from run to run over bare runs of as many rows", slower, unit="x", note=NOTE),
        Figure(TITLE, "requests admitted", admitted, note=NOTE),
        Figure(
            TITLE, "median time to refuse", float(np.median(outcome.refusal_s)) * 1e3, unit="ms", note=NOTE
        ),
    ]


def warm(loaded: Loaded) -> None:
    """Let the engine see runs of all sizes."""
    tickets = [loaded.submit(loaded.sample("ddim", 20, 1, seed)) for seed in range(MAX_ROWS)]
    for ticket in tickets:
        ticket.done.wait()


def drive(loaded: Loaded, trace: Trace) -> Outcome:
    """Send the trace; who is refused leaves at once."""
    begun = time.perf_counter()
    tickets: dict[int, Timed] = {}
    refusal_s = []
    for index, (due, steps) in enumerate(zip(trace.due_s, trace.steps, strict=True)):
        time.sleep(max(0.0, begun + due - time.perf_counter()))
        asked = time.perf_counter()
        try:
            tickets[index] = loaded.submit(loaded.sample("ddim", int(steps), 1, index), DEADLINE_S)
        except ServingError:
            refusal_s.append(time.perf_counter() - asked)
    for ticket in tickets.values():
        ticket.done.wait()
    in_time = [index for index, ticket in tickets.items() if ticket.error is None]
    return Outcome(list(tickets), in_time, refusal_s or [0.0])


def paced(loaded: Loaded, trace: Trace, costs: Costs) -> tuple[float, Outcome]:
    """``drive``, and how much longer runs took meanwhile, from one to the next, than bare ones."""
    lane = loaded.engine._models[loaded.model.key].lanes["denoiser"]
    observe, taken_s, bare_s = lane.step_time.observe, [0.0], [0.0]

    def counted(rows: int, seconds: float) -> None:
        observe(rows, seconds)
        taken_s[0], bare_s[0] = taken_s[0] + seconds, bare_s[0] + costs.run_s(rows)

    setattr(lane.step_time, "observe", counted)  # noqa: B010
    outcome = drive(loaded, trace)
    return taken_s[0] / bare_s[0], outcome


def share_of_regret(trace: Trace, costs: Costs, outcome: Outcome) -> float:
    """Of a sample of the refused: who would have been in time beside the admitted, and harmed none."""
    admitted = np.array(outcome.admitted, np.int64)
    refused = np.setdiff1d(np.arange(len(trace.steps)), admitted)
    if not len(refused):
        return 0.0
    rng = np.random.default_rng(3)
    judged = rng.choice(refused, min(JUDGED, len(refused)), replace=False)
    in_time = latency_of(trace, admitted, costs) <= DEADLINE_S
    regretted = 0
    for one in judged.tolist():
        place = int(np.searchsorted(admitted, one))
        latency = latency_of(trace, np.insert(admitted, place, one), costs)
        harmed = (np.delete(latency, place) > DEADLINE_S) & in_time
        regretted += int(latency[place] <= DEADLINE_S and not harmed.any())
    return regretted / len(judged)


def latency_of(trace: Trace, some: NDArray[np.int64], costs: Costs) -> NDArray[np.float64]:
    """Of some requests alone, on an ideal server of these costs."""
    return ideal(Trace(trace.due_s[some], trace.steps[some]), costs)
