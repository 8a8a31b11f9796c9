"""The metrics of one process, by the entries of the table, and the port that they are scraped from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    Summary,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from serving.telemetry.cpu_wait import CpuWait
from serving.telemetry.histogram import ManyHistogram
from serving.telemetry.labels import Bounded
from serving.telemetry.table import TABLE, Metric

Made = Counter | Gauge | Histogram | Summary | ManyHistogram

KINDS: dict[str, type[Counter] | type[Gauge] | type[Summary]] = {
    "counter": Counter,
    "gauge": Gauge,
    "summary": Summary,
}


class Metrics:
    """A registry of its own; ``model`` and ``token`` make label values of names."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a _created series beside every other one tells nobody anything
        self.registry = CollectorRegistry()
        self.model = Bounded()
        self.token = Bounded()
        self._before = _Before()
        self.registry.register(self._before)  # first, so that the others show what it enters
        self._by_name = {metric.name: self._made(metric) for metric in TABLE if metric.how != "scraped"}
        self._children: dict[tuple[str, ...], Made] = {}
        self._cpu_wait = CpuWait()
        self.registry.register(self._cpu_wait)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def counter(self, metric: Metric, *labels: str) -> Counter:
        """The counter, or its child with these label values."""
        found = self._child(metric, labels)
        assert isinstance(found, Counter)
        return found

    def gauge(self, metric: Metric, *labels: str) -> Gauge:
        """The gauge, or its child with these label values."""
        found = self._child(metric, labels)
        assert isinstance(found, Gauge)
        return found

    def histogram(self, metric: Metric, *labels: str) -> Histogram:
        """The histogram, or its child with these label values."""
        found = self._child(metric, labels)
        assert isinstance(found, Histogram)
        return found

    def summary(self, metric: Metric, *labels: str) -> Summary:
        """The summary (sum and count), or its child with these label values."""
        found = self._child(metric, labels)
        assert isinstance(found, Summary)
        return found

    def forget(self, metric: Metric, *labels: str) -> None:
        """Show a child no more; harmless where it was never made."""
        found = self._by_name[metric.name]
        if self._children.pop((metric.name, *labels), None) is not None:
            assert not isinstance(found, ManyHistogram)
            found.remove(*labels)

    def _child(self, metric: Metric, labels: tuple[str, ...]) -> Made:
        """Remembered, since prometheus_client takes ten times as long to find it by its labels."""
        key = (metric.name, *labels)
        found = self._children.get(key)
        if found is None:
            whole = self._by_name[metric.name]
            assert not isinstance(whole, ManyHistogram)
            found = self._children[key] = whole.labels(*labels) if labels else whole
        return found

    def many(self, metric: Metric) -> ManyHistogram:
        """The histogram that takes arrays."""
        found = self._by_name[metric.name]
        assert isinstance(found, ManyHistogram)
        return found

    def before_scrapes(self, enter: Callable[[], None]) -> None:
        """Call this first whenever somebody scrapes, from the scraping thread."""
        self._before.hooks.append(enter)

    def watch_engine(self, pid: Callable[[], int | None]) -> None:
        """The process of an engine: its memory, files and CPU seconds, as ``pxserve_engine_process_...``."""
        ProcessCollector("pxserve_engine", lambda: pid() or "none", registry=self.registry)
        self._cpu_wait.processes["engine"] = pid

    def serve(self, host: str, port: int) -> tuple[WSGIServer, threading.Thread]:
        """Answer HTTP ``/metrics`` from a thread of its own; raises OSError where the port is taken."""
        return start_http_server(port, host, self.registry)

    def _made(self, metric: Metric) -> Made:
        if metric.how == "many":
            return ManyHistogram(metric, self.registry)
        if metric.kind == "histogram":
            return Histogram(
                metric.name, metric.help, metric.labels, registry=self.registry, buckets=metric.buckets
            )
        return KINDS[metric.kind](metric.name, metric.help, metric.labels, registry=self.registry)


class _Before(Collector):
    """Shows nothing, but is asked first."""

    def __init__(self) -> None:
        self.hooks: list[Callable[[], None]] = []

    def describe(self) -> list[Family]:
        """No series."""
        return []

    def collect(self) -> list[Family]:
        """Let everybody enter what waits."""
        for hook in self.hooks:
            hook()
        return []
