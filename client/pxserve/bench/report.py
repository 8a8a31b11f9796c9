"""What a load showed: throughput, latencies, goodput."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from pxserve.bench.load import Answer, Workload

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Report:
    """Seconds and rates; ``latency_s`` by percentile of answered requests, ``goodput_per_s`` in time."""

    model: str
    requests: int
    codes: dict[str, int]
    seconds: float
    requests_per_s: float
    rows_per_s: float
    goodput_per_s: float
    mean_latency_s: float
    latency_s: dict[str, float]
    latency_by_steps_s: dict[str, dict[str, float]]
    refusal_latency_s: float
    device_seconds: float

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def summarise(workload: Workload, answers: Sequence[Answer]) -> Report:
    """Figures over all answers; zeros where nothing was answered."""
    served = [answer for answer in answers if answer.code == "OK"]
    refused = [answer.took_s for answer in answers if answer.code != "OK"]
    seconds = max((answer.sent_s + answer.took_s for answer in answers), default=0.0)
    in_time = [a for a in served if not workload.deadline_s or a.took_s <= workload.deadline_s]
    per_second = 1.0 / seconds if seconds else 0.0
    return Report(
        model=workload.model,
        requests=len(answers),
        codes=dict(Counter(answer.code for answer in answers)),
        seconds=seconds,
        requests_per_s=len(served) * per_second,
        rows_per_s=sum(answer.rows for answer in served) * per_second,
        goodput_per_s=len(in_time) * per_second,
        mean_latency_s=float(np.mean([a.took_s for a in served])) if served else 0.0,
        latency_s=_percentiles(served),
        latency_by_steps_s=_by_steps(served),
        refusal_latency_s=float(np.median(refused)) if refused else 0.0,
        device_seconds=sum(answer.device_s for answer in served),
    )


def _by_steps(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    steps = sorted({answer.steps for answer in answers})
    return {str(n): _percentiles([a for a in answers if a.steps == n]) for n in steps}


def _percentiles(answers: Sequence[Answer]) -> dict[str, float]:
    if not answers:
        return {}
    values = np.percentile([answer.took_s for answer in answers], PERCENTILES)
    return {f"p{p}": float(value) for p, value in zip(PERCENTILES, values, strict=True)}
