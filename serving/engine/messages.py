"""What the engine and its callers exchange: plain data that could cross a process border."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.errors import ServingError
from serving.families.request import Array, Request
from serving.families.result import Result


@dataclass(frozen=True)
class Options:
    """How a request is to be run; nothing here changes its answer."""

    request_id: str = ""
    deadline_s: float | None = None  # time left, from now
    stream: bool = False  # send rows as they finish, progress and previews
    preview_every_steps: int = 0
    priority: int = 0  # higher first
    share: str = ""  # whose turn it is: shares get equal device seconds while they compete


@dataclass(frozen=True)
class Usage:
    """What a request cost."""

    network_evaluations: int  # network rows over the whole request
    device_seconds: float
    queue_seconds: float


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


@dataclass(frozen=True)
class Failed:
    """Why there is no answer; the last event."""

    error: ServingError
    rows: NDArray[np.int64] | None = None


Event = Advanced | Previewed | RowFinal | Finished | Failed


@dataclass(frozen=True)
class Quote:
    """What a request would cost: answers validate_only."""

    network_rows: dict[str, int]
    seconds_alone: float
    seconds_queued: float


@dataclass(frozen=True)
class ModelKey:
    """A loaded package."""

    name: str
    version: int


@dataclass(frozen=True)
class Submission:
    """A request on its way into the engine."""

    ticket: int
    model: ModelKey
    request: Request
    options: Options
