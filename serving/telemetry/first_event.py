"""How long the caller of a stream saw nothing."""

from __future__ import annotations

import time
from typing import Protocol

from serving.telemetry.calls import CallMetrics, First
from serving.telemetry.tracing import Trace

KINDS = {"preview": "preview", "text": "token", "row": "row", "estimate": "estimate"}  # by field of the event


class Message(Protocol):
    """An event of a stream."""

    def WhichOneof(self, group: str) -> str | None:  # noqa: N802
        """The field that is set."""


class Call(Protocol):
    """Whose stream it is."""

    model: str
    begun_s: float
    trace: Trace


class FirstEvent:
    """Observes the first event of a stream that shows something; progress does not."""

    def __init__(self, calls: CallMetrics, call: Call) -> None:
        self._calls = calls
        self._call = call
        self._seen = False

    def sent(self, message: Message) -> None:
        """An event is about to be sent."""
        if self._seen:
            return
        kind = KINDS.get(message.WhichOneof("event") or "")
        if kind is not None:
            self._seen = True
            call = self._call
            self._calls.add(First(call.model, kind, time.monotonic() - call.begun_s, call.trace.trace_id))
