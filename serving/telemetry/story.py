"""What is known of one call: enough for its metrics, its log line and its spans."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple

from serving.engine.messages import Event, Failed, Finished, Stage, Usage
from serving.families.request import Request

Phases = tuple[tuple[str, float, float], ...]


@dataclass
class Story:
    """Times on the monotonic clock; ``model`` is filled in once it is known to exist."""

    operation: str
    request_id: str
    begun_s: float
    model: str = ""
    request: Request | None = None  # as resolved
    admitted_s: float | None = None
    answered_s: float | None = None  # when the engine's last event was heard
    usage: Usage | None = None
    stages: tuple[Stage, ...] = field(default=())

    def admitted(self, request: Request) -> None:
        """The engine has it."""
        self.request, self.admitted_s = request, time.monotonic()

    def heard(self, event: Event) -> None:
        """An event of the engine."""
        if isinstance(event, Finished | Failed):
            self.answered_s, self.usage, self.stages = time.monotonic(), event.usage, event.stages

    def phases(self, ended_s: float) -> Phases:
        """(name, begin, end) of prepare, queue, run and reply, one after another; as far as it came."""
        if self.admitted_s is None:
            return (("prepare", self.begun_s, ended_s),)
        if self.answered_s is None or self.usage is None:
            return (("prepare", self.begun_s, self.admitted_s),)
        return Times(
            self.begun_s, self.admitted_s, self.usage.queue_seconds, self.answered_s, ended_s
        ).phases()


class Times(NamedTuple):
    """When an answered call passed from one phase to the next, on the monotonic clock."""

    begun_s: float
    admitted_s: float
    queue_s: float  # how long, by the engine
    answered_s: float
    ended_s: float

    def phases(self) -> Phases:
        """(name, begin, end) of all four."""
        started_s = min(self.admitted_s + self.queue_s, self.answered_s)
        return (
            ("prepare", self.begun_s, self.admitted_s),
            ("queue", self.admitted_s, started_s),
            ("run", started_s, self.answered_s),
            ("reply", self.answered_s, self.ended_s),
        )
