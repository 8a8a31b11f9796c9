"""Calls as metrics: a call leaves one record, and records become metrics some at a time, or when scraped.

After a network run most of a processor's caches are cold, and the ten observations of a call take a tenth
of a millisecond; together, later, they take a fraction of that, and no call waits for them.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

from serving.families.request import Operation
from serving.telemetry import table
from serving.telemetry.metrics import Metrics
from serving.telemetry.story import Story, Times

MOST_WAITING = 1000  # records; more are entered at once


class Answered(NamedTuple):
    """What the engine did for a call; nothing of its data."""

    operation: str
    rows: int
    prompt_tokens: int
    times: Times


class Ended(NamedTuple):
    """A call that has its status; ``seconds`` is None where latency is nobody's concern (health)."""

    model: str
    operation: str
    code: str
    reason: str  # of its error; empty where it was answered
    seconds: float | None
    trace_id: str
    answered: Answered | None


class First(NamedTuple):
    """A stream that showed something for the first time."""

    model: str
    kind: str
    seconds: float
    trace_id: str


class CallMetrics:
    """Written to by the event loop, read by whoever scrapes."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._waiting: deque[Ended | First] = deque()
        self._flying: Counter[str] = Counter()
        metrics.before_scrapes(self.enter)

    def begin(self, operation: str) -> None:
        """A call came in."""
        if operation not in self._flying:
            gauge = self._metrics.gauge(table.REQUESTS_IN_FLIGHT, operation)
            gauge.set_function(lambda: float(self._flying[operation]))
        self._flying[operation] += 1

    def leave(self, operation: str) -> None:
        """It is over, however."""
        self._flying[operation] -= 1

    def add(self, record: Ended | First) -> None:
        """Enter it soon."""
        self._waiting.append(record)
        if len(self._waiting) > MOST_WAITING:
            self.enter()

    def enter(self) -> None:
        """Make metrics of what waits; several threads may do so at once."""
        while self._waiting:
            try:
                record = self._waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            self._ended(record) if isinstance(record, Ended) else self._first(record)

    def _ended(self, record: Ended) -> None:
        model = self._metrics.model(record.model)
        if record.seconds is not None:
            latency = self._metrics.histogram(table.REQUEST_SECONDS, model, record.operation, record.code)
            latency.observe(record.seconds, _exemplar(record.trace_id))
        if record.reason:
            self._metrics.counter(table.REJECTIONS_TOTAL, model, record.reason).inc()
        if record.answered is not None:
            self._answered(model, record.answered)

    def _answered(self, model: str, answered: Answered) -> None:
        metrics = self._metrics
        for name, begun_s, until_s in answered.times.phases():
            metrics.summary(table.PHASE_SECONDS, model, name).observe(until_s - begun_s)
        metrics.counter(table.ROWS_TOTAL, model, answered.operation).inc(answered.rows)
        if answered.prompt_tokens:
            metrics.counter(table.TOKENS_TOTAL, model, "prompt").inc(answered.prompt_tokens)

    def _first(self, record: First) -> None:
        model = self._metrics.model(record.model)
        first = self._metrics.histogram(table.FIRST_EVENT_SECONDS, model, record.kind)
        first.observe(record.seconds, _exemplar(record.trace_id))


def answered(story: Story, ended_s: float) -> Answered | None:
    """Of an answered call that asked the engine once."""
    request, usage = story.request, story.usage
    if request is None or usage is None or story.admitted_s is None or story.answered_s is None:
        return None
    prompt = request.lengths if request.operation is Operation.SAMPLE else None
    return Answered(
        request.operation,
        request.rows * request.completions,
        0 if prompt is None else int(prompt.sum()),
        Times(story.begun_s, story.admitted_s, usage.queue_seconds, story.answered_s, ended_s),
    )


def _exemplar(trace_id: str) -> dict[str, str] | None:
    return {"trace_id": trace_id} if trace_id else None
