"""A histogram that takes many observations in one call; prometheus_client's takes one at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from serving.telemetry.table import Metric

Labels = tuple[str, ...]


class ManyHistogram(Collector):
    """Counts [buckets + 1] and sum by label values; safe to scrape while it is filled."""

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._metric = metric
        self._bounds = np.array(metric.buckets, np.float64)
        self._names = [*(repr(float(bound)) for bound in metric.buckets), "+Inf"]
        self._counts: dict[Labels, NDArray[np.float64]] = {}
        self._sums: dict[Labels, float] = {}
        self._lock = threading.Lock()
        registry.register(self)

    def observe(self, labels: Labels, values: ArrayLike, times: ArrayLike | None = None) -> None:
        """Add ``values``, each ``times`` times (once where absent)."""
        values = np.asarray(values, np.float64)
        if not values.size:
            return
        weights = np.ones(values.shape) if times is None else np.asarray(times, np.float64)
        buckets = np.searchsorted(self._bounds, values, side="left")  # a bound belongs to its bucket
        counts = np.bincount(buckets, weights, minlength=len(self._bounds) + 1)
        with self._lock:
            self._begin(labels)
            self._counts[labels] += counts
            self._sums[labels] += float(values @ weights)

    def begin(self, labels: Labels) -> None:
        """Show these labels from now on, with zeros, so that the first observation counts as an increase."""
        with self._lock:
            self._begin(labels)

    def describe(self) -> list[HistogramMetricFamily]:
        """Name and type, without values."""
        return [self._family()]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What a scrape shows."""
        family = self._family()
        with self._lock:
            shown = [(key, np.cumsum(counts), self._sums[key]) for key, counts in self._counts.items()]
        for labels, cumulated, total in shown:
            buckets = list(zip(self._names, cumulated.tolist(), strict=True))
            family.add_metric(labels, buckets, total)
        yield family

    def _begin(self, labels: Labels) -> None:
        self._counts.setdefault(labels, np.zeros(len(self._bounds) + 1))
        self._sums.setdefault(labels, 0.0)

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._metric.name, self._metric.help, labels=self._metric.labels)
