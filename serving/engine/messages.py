"""What the engine and its callers exchange: plain data that could cross a process border."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.errors import ServingError
from serving.families.request import Array, Request
from serving.families.result import Result


@dataclass(frozen=True)
class Quota:
    """Device seconds that a share may use: ``device_s`` at once, refilled evenly over ``window_s``."""

    device_s: float
    window_s: float


@dataclass(frozen=True)
class Options:
    """How a request is to be run; nothing here changes its answer."""

    request_id: str = ""
    deadline_s: float | None = None  # time left, from now
    stream: bool = False  # send rows as they finish, progress and previews
    preview_every_steps: int = 0
    priority: int = 0  # higher first
    share: str = ""  # whose turn it is: shares get device seconds by their weights while they compete
    share_weight: float = 1.0
    quota: Quota | None = None  # of the share; refused once it is used up
    traced: bool = False  # tell the stages of the request with its last event


@dataclass(frozen=True)
class Usage:
    """What a request cost."""

    network_evaluations: int  # network rows over the whole request
    device_seconds: float
    queue_seconds: float


@dataclass(frozen=True)
class Stage:
    """Runs of one network that a traced request took part in; times on the monotonic clock."""

    component: str
    phase: str  # prefill, steps (of rows that stay), network (one run per row)
    begun_s: float
    ended_s: float = 0.0
    runs: int = 0
    seconds: float = 0.0  # of those runs, for all who shared them
    rows: int = 0  # network rows of this request
    batch_rows: int = 0  # network rows of everybody


@dataclass(frozen=True)
class Advanced:
    """Progress of the whole request, in network rows."""

    steps_done: int
    steps_total: int
    predicted_seconds_left: float
    queued: bool
    partial: Result | None = None  # a running estimate


@dataclass(frozen=True)
class Previewed:
    """An estimate of a row that is not final (x0 estimate; tokens so far)."""

    row: int
    step: int
    data: Array
    length: int | None = None


@dataclass(frozen=True)
class RowFinal:
    """A row that will not change any more."""

    row: int
    data: Array
    length: int | None = None


@dataclass(frozen=True)
class Finished:
    """The answer; the last event."""

    result: Result
    usage: Usage
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True)
class Failed:
    """Why there is no answer; the last event."""

    error: ServingError
    rows: NDArray[np.int64] | None = None
    usage: Usage | None = None  # None where it was never admitted
    stages: tuple[Stage, ...] = ()


Event = Advanced | Previewed | RowFinal | Finished | Failed


@dataclass(frozen=True)
class Quote:
    """What a request would cost: answers validate_only."""

    network_rows: dict[str, int]
    seconds_alone: float
    seconds_queued: float


class ModelKey(NamedTuple):
    """A loaded package. A tuple, whose hash needs no call of Python's: every tick looks models up."""

    name: str
    version: int


@dataclass(frozen=True)
class Submission:
    """A request on its way into the engine."""

    ticket: int
    model: ModelKey
    request: Request
    options: Options
