"""What the engine tells whoever watches it: a few reports a second, never one call per tick or row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.engine.messages import Usage

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Phase = Literal["prefill", "step"]


@dataclass(frozen=True)
class Runs:
    """Network runs of one lane since the last report, arrays with one entry per run.

    ``gaps_s`` are times between two steps of the same row (of a token model: between two tokens), each of
    ``gap_rows`` rows.
    """

    model: str
    family: str
    component: str
    phase: Phase
    capacity: int  # network rows that one run may hold
    seconds: Floats  # [runs] the run and the advance of its rows
    rows: Ints  # [runs] network rows
    padded_rows: int  # network rows that ran for nobody
    steps: int  # rows that advanced, over all runs
    gaps_s: Floats
    gap_rows: Ints


class Ended(NamedTuple):
    """A request that left the engine; ``reason`` is its error's, empty where it was answered."""

    model: str
    operation: str
    share: str
    reason: str
    usage: Usage
    latency_s: float  # since admission
    predicted_s: float  # at admission


@dataclass(frozen=True)
class Report:
    """All that happened since the last report, and how things stand."""

    runs: tuple[Runs, ...]
    ended: tuple[Ended, ...]
    rows_queued: int  # result rows of requests that have not run yet
    rows_active: int
    backlog_s: float  # predicted device seconds of all admitted work


class Observer(Protocol):
    """Called by the engine's thread, or by the thread that reads from the engine's process."""

    def report(self, report: Report) -> None:
        """About four times a second, and soon after the engine became idle."""


class Nobody:
    """Watches nothing."""

    def report(self, report: Report) -> None:
        """Forget it."""
