"""Spans of requests by OpenTelemetry, an optional extra: what it is not asked for, it does not import."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from serving.engine.messages import Stage
from serving.telemetry.story import Story
from serving.telemetry.traceparent import Metadata, sampled_trace

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

Attributes = dict[str, str | int | float]
INSTALL = "pip install 'pxserve-server[tracing]'"
# Codes that make a server's span an error, by OpenTelemetry's conventions for gRPC.
SERVER_FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
FLUSH_S = 5.0  # for spans that wait to be exported when the process ends


class Trace(Protocol):
    """The trace that one call belongs to."""

    @property
    def recording(self) -> bool:
        """Whether its stages are wanted."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits where somebody records the trace, else empty."""

    def end(self, story: Story, code: str, code_number: int, reason: str) -> None:
        """The call has its status."""


class Tracing(Protocol):
    """Begins a trace for every call."""

    def begin(self, operation: str, metadata: Metadata) -> Trace:
        """A call came in."""

    def close(self) -> None:
        """Send what is left; blocking."""


class Untraced:
    """No span; the caller's own trace is still named in logs and exemplars."""

    recording = False

    def __init__(self, trace_id: str = "") -> None:
        self.trace_id = trace_id

    def end(self, story: Story, code: str, code_number: int, reason: str) -> None:
        """Nothing to do."""


NO_TRACE = Untraced()


class NoTracing:
    """Where no endpoint was given."""

    def begin(self, operation: str, metadata: Metadata) -> Trace:
        """Only reads which trace the caller records, if any."""
        trace_id = sampled_trace(metadata)
        return Untraced(trace_id) if trace_id else NO_TRACE

    def close(self) -> None:
        """Nothing to send."""


class OpenTelemetry:
    """One server span per call, its phases and stages below it, written when the call has ended."""

    def __init__(self, provider: TracerProvider, version: str) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("pxserve", version)

    def begin(self, operation: str, metadata: Metadata) -> Trace:
        """A span, the caller's span being its parent where the metadata name one."""
        from opentelemetry.trace import SpanKind

        span = self._tracer.start_span(
            f"pxserve {operation}", context=_context_of(metadata), kind=SpanKind.SERVER
        )
        return Recording(self._tracer, span) if span.is_recording() else NO_TRACE

    def close(self) -> None:
        """Send what is left, within five seconds."""
        self._provider.force_flush(int(FLUSH_S * 1000))
        self._provider.shutdown()


class Recording:
    """A sampled call."""

    recording = True

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self.trace_id = f"{span.get_span_context().trace_id:032x}"

    def end(self, story: Story, code: str, code_number: int, reason: str) -> None:
        """Write the spans of the call's phases, and end its own."""
        from opentelemetry.trace import Status, StatusCode

        now_s, now_ns = time.monotonic(), time.time_ns()
        self._zero_ns = now_ns - int(now_s * 1e9)  # of the monotonic clock, as time since the epoch
        self._span.set_attributes(_described(story) | {"rpc.grpc.status_code": code_number})
        if reason:
            self._span.set_attribute("pxserve.reason", reason)
        if code in SERVER_FAULTS:
            self._span.set_status(Status(StatusCode.ERROR, code))
        run = self._span
        for name, begun_s, ended_s in story.phases(now_s):
            span = self._child(self._span, f"pxserve.{name}", begun_s, ended_s)
            run = span if name == "run" else run
        for stage in story.stages:
            self._child(run, f"pxserve.{stage.phase}", stage.begun_s, stage.ended_s, _measured(stage))
        self._span.end(now_ns)

    def _child(
        self, parent: Span, name: str, begun_s: float, ended_s: float, attributes: Attributes | None = None
    ) -> Span:
        from opentelemetry.trace import set_span_in_context

        begun_ns, ended_ns = (self._zero_ns + int(moment_s * 1e9) for moment_s in (begun_s, ended_s))
        context = set_span_in_context(parent)
        span = self._tracer.start_span(name, context, attributes=attributes, start_time=begun_ns)
        span.end(ended_ns)
        return span


def opened(endpoint: str, ratio: float, version: str) -> OpenTelemetry:
    """Spans to an OTLP endpoint (``http://HOST:4317``); ImportError where the packages are not installed.

    Callers decide for their own traces; of calls without one, ``ratio`` are recorded.
    """
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    ours = Resource({"service.name": "pxserve", "service.version": version})
    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(ratio),
        resource=ours.merge(OTELResourceDetector().detect()),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return OpenTelemetry(provider, version)


def _context_of(metadata: Metadata) -> Context:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {key: value for key, value in metadata if isinstance(value, str)}
    return TraceContextTextMapPropagator().extract(carrier)


def _described(story: Story) -> Attributes:
    attributes: Attributes = {
        "rpc.system": "grpc",
        "rpc.method": story.operation,
        "pxserve.request_id": story.request_id,
        "pxserve.model": story.model,
    }
    if story.request is not None:
        attributes |= {"pxserve.method": story.request.method, "pxserve.rows": story.request.rows}
    if story.usage is not None:
        attributes |= {
            "pxserve.network_evaluations": story.usage.network_evaluations,
            "pxserve.device_seconds": story.usage.device_seconds,
            "pxserve.queue_seconds": story.usage.queue_seconds,
        }
    return attributes


def _measured(stage: Stage) -> Attributes:
    return {
        "pxserve.component": stage.component,
        "pxserve.runs": stage.runs,
        "pxserve.run_seconds": stage.seconds,
        "pxserve.network_rows": stage.rows,
        "pxserve.mean_batch_rows": stage.batch_rows / stage.runs,
    }
