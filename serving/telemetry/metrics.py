"""Prometheus metrics: one table of names, labels and units; everything else refers to it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal, Protocol
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

_LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
_TICK_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Metric:
    """One metric; units are in the name (``_seconds``, ``_rows``), label values are bounded."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


REQUEST_SECONDS = Metric(
    "pxserve_request_seconds",
    "histogram",
    "From the first byte of a call to its status",
    ("model", "operation", "code"),
    _LATENCY_S,
)
QUEUE_SECONDS = Metric(
    "pxserve_queue_seconds", "histogram", "From admission to the first network run", ("model",), _LATENCY_S
)
STEP_SECONDS = Metric(
    "pxserve_step_seconds",
    "histogram",
    "One network run and the advance of its rows",
    ("model", "component"),
    _TICK_S,
)
BATCH_ROWS = Metric(
    "pxserve_batch_rows", "histogram", "Network rows that shared a run", ("model", "component"), _ROWS
)
ROWS_ACTIVE = Metric("pxserve_rows_active", "gauge", "Rows in tables now")
ROWS_QUEUED = Metric("pxserve_rows_queued", "gauge", "Rows that wait for admission")
ROWS_CAPACITY = Metric("pxserve_rows_capacity", "gauge", "Rows that one run may hold", ("model", "component"))
BACKLOG_SECONDS = Metric("pxserve_backlog_seconds", "gauge", "Predicted device seconds of all remaining work")
ROWS_TOTAL = Metric("pxserve_rows_total", "counter", "Answered rows", ("model", "operation"))
EVALUATIONS_TOTAL = Metric(
    "pxserve_network_evaluations_total", "counter", "Network rows of answers", ("model",)
)
DEVICE_SECONDS_TOTAL = Metric(
    "pxserve_device_seconds_total", "counter", "Device seconds of answers", ("model",)
)
REJECTIONS_TOTAL = Metric(
    "pxserve_rejections_total", "counter", "Requests refused, by ErrorInfo reason", ("reason",)
)
LOAD_SECONDS = Metric("pxserve_load_seconds", "gauge", "Last load, warm-up included", ("model",))
WARMUP_SECONDS = Metric("pxserve_warmup_seconds", "gauge", "Last warm-up", ("model",))
MODEL_MEMORY_BYTES = Metric("pxserve_model_memory_bytes", "gauge", "Memory of a loaded model", ("model",))
MODELS_READY = Metric("pxserve_models_ready", "gauge", "Versions that answer")
BUILD_INFO = Metric("pxserve_build_info", "gauge", "1; the labels say what runs", ("version", "device"))

TABLE: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


class Cost(Protocol):
    """What a request cost (serving.engine.messages.Usage)."""

    @property
    def network_evaluations(self) -> int:
        """Network rows over the whole request."""

    @property
    def device_seconds(self) -> float:
        """Its share of the runs it was in."""

    @property
    def queue_seconds(self) -> float:
        """From admission to its first run."""


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._by_name = {metric.name: self._made(metric) for metric in TABLE}

    def counter(self, metric: Metric, *labels: str) -> Counter:
        """The counter, or its child with these label values."""
        found = self._by_name[metric.name]
        assert isinstance(found, Counter)
        return found.labels(*labels) if labels else found

    def gauge(self, metric: Metric, *labels: str) -> Gauge:
        """The gauge, or its child with these label values."""
        found = self._by_name[metric.name]
        assert isinstance(found, Gauge)
        return found.labels(*labels) if labels else found

    def histogram(self, metric: Metric, *labels: str) -> Histogram:
        """The histogram, or its child with these label values."""
        found = self._by_name[metric.name]
        assert isinstance(found, Histogram)
        return found.labels(*labels) if labels else found

    def serve(self, host: str, port: int) -> tuple[WSGIServer, threading.Thread]:
        """Answer HTTP ``/metrics`` from a thread of its own; raises OSError where the port is taken."""
        return start_http_server(port, host, self.registry)

    def _made(self, metric: Metric) -> Counter | Gauge | Histogram:
        if metric.kind == "counter":
            return Counter(metric.name, metric.help, metric.labels, registry=self.registry)
        if metric.kind == "gauge":
            return Gauge(metric.name, metric.help, metric.labels, registry=self.registry)
        return Histogram(
            metric.name, metric.help, metric.labels, registry=self.registry, buckets=metric.buckets
        )


class EngineMetrics:
    """What the engine reports; one call per tick or request, whatever its rows."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._ticks: dict[tuple[str, str], tuple[Histogram, Histogram, Gauge]] = {}
        self._queued = metrics.gauge(ROWS_QUEUED)
        self._active = metrics.gauge(ROWS_ACTIVE)
        self._backlog = metrics.gauge(BACKLOG_SECONDS)

    def tick(self, model: str, component: str, seconds: float, rows: int, capacity: int) -> None:
        """One network run of ``rows`` rows, out of at most ``capacity``."""
        step, batch, most = self._ticks.get((model, component)) or self._children(model, component)
        step.observe(seconds)
        batch.observe(rows)
        most.set(capacity)

    def finished(self, model: str, usage: Cost) -> None:
        """One request was answered."""
        self._metrics.histogram(QUEUE_SECONDS, model).observe(usage.queue_seconds)
        self._metrics.counter(EVALUATIONS_TOTAL, model).inc(usage.network_evaluations)
        self._metrics.counter(DEVICE_SECONDS_TOTAL, model).inc(usage.device_seconds)

    def queue(self, rows_queued: int, rows_active: int) -> None:
        """Rows that wait, and rows in tables."""
        self._queued.set(rows_queued)
        self._active.set(rows_active)

    def backlog(self, seconds: float) -> None:
        """Predicted device seconds of everything admitted or queued."""
        self._backlog.set(seconds)

    def _children(self, model: str, component: str) -> tuple[Histogram, Histogram, Gauge]:
        made = (
            self._metrics.histogram(STEP_SECONDS, model, component),
            self._metrics.histogram(BATCH_ROWS, model, component),
            self._metrics.gauge(ROWS_CAPACITY, model, component),
        )
        self._ticks[model, component] = made
        return made
