"""The caller's trace, where the application records one with OpenTelemetry."""

from __future__ import annotations

import sys

NONE: tuple[tuple[str, str], ...] = ()


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """W3C ``traceparent`` (and ``tracestate``) of the active span; empty without one.

    An application that has not imported OpenTelemetry has no active span, so nothing is imported here for it.
    """
    if "opentelemetry.trace" not in sys.modules:
        return NONE
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return tuple(carrier.items())
