"""Which models there are and what they take; their counters begin at zero when they become ready.

A counter that appears with its first event has no increase that a rate could see: the first error of a
model would go unnoticed. Latencies do not begin so: their buckets by operation and code would be most of a
scrape, and the first answer is no news.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from serving.repository.loader import LoadedModel
from serving.repository.version import State, Version
from serving.telemetry import table
from serving.telemetry.engine_metrics import CAUSES, SHUTDOWN
from serving.telemetry.metrics import Metrics


class ModelMetrics:
    """Lives on the event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._shown: dict[tuple[str, int], LoadedModel] = {}
        for reason in table.REASONS:
            metrics.counter(table.REJECTIONS_TOTAL, "", reason)

    def show(self, versions: Sequence[Version]) -> None:
        """The versions as they are now; gauges of those that are gone go, too."""
        states = Counter(version.state for version in versions)
        for state in State:
            self._metrics.gauge(table.MODELS, state.value).set(states[state])
        self._metrics.gauge(table.MODELS_READY).set(states[State.READY])
        loaded = {
            (version.key.name, version.key.version): version.loaded
            for version in versions
            if version.loaded is not None
        }
        for key in self._shown.keys() - loaded.keys():
            self._forget(self._shown.pop(key))
        for key, model in loaded.items():
            if key not in self._shown:
                self._shown[key] = model
                self._describe(model)
                self._begin(model)

    def _describe(self, loaded: LoadedModel) -> None:
        metrics, version = self._metrics, self._version(loaded)
        metrics.gauge(table.LOAD_SECONDS, *version).set(loaded.load_seconds)
        metrics.gauge(table.WARMUP_SECONDS, *version).set(loaded.warmup_seconds)
        metrics.gauge(table.MODEL_MEMORY_BYTES, *version, "weights").set(loaded.memory_bytes)
        metrics.gauge(table.MODEL_MEMORY_BYTES, *version, "cache").set(loaded.cache_bytes)
        metrics.gauge(table.MODEL_INFO, *self._facts(loaded)).set(1)

    def _forget(self, loaded: LoadedModel) -> None:
        metrics, version = self._metrics, self._version(loaded)
        metrics.forget(table.LOAD_SECONDS, *version)
        metrics.forget(table.WARMUP_SECONDS, *version)
        for kind in ("weights", "cache"):
            metrics.forget(table.MODEL_MEMORY_BYTES, *version, kind)
        metrics.forget(table.MODEL_INFO, *self._facts(loaded))

    def _begin(self, loaded: LoadedModel) -> None:
        metrics, model = self._metrics, self._metrics.model(loaded.key.name)
        for operation in (c.operation for c in loaded.capabilities if c.methods):
            metrics.counter(table.ROWS_TOTAL, model, operation.value)
        for reason in table.REASONS:
            metrics.counter(table.REJECTIONS_TOTAL, model, reason)
        for cause in (*CAUSES.values(), SHUTDOWN):
            metrics.counter(table.WASTED_DEVICE_SECONDS_TOTAL, model, cause)
        metrics.counter(table.DEVICE_SECONDS_TOTAL, model, "")
        metrics.many(table.QUEUE_SECONDS).begin((model,))
        for component in loaded.spec.components:
            metrics.counter(table.NETWORK_EVALUATIONS_TOTAL, model, component)
            metrics.counter(table.PADDED_ROWS_TOTAL, model, component)
            metrics.many(table.STEP_SECONDS).begin((model, component, "step"))

    def _version(self, loaded: LoadedModel) -> tuple[str, str]:
        return self._metrics.model(loaded.key.name), str(loaded.key.version)

    def _facts(self, loaded: LoadedModel) -> tuple[str, ...]:
        kernels = "triton" if loaded.device.startswith("cuda") else "reference"
        facts = (loaded.runtime, loaded.device, loaded.dtype, kernels, loaded.determinism)
        return (*self._version(loaded), loaded.spec.family, *facts)
