"""The engine's reports as metrics; each array of a report costs one call, whatever its length."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from serving.engine.observer import Ended, Report, Runs
from serving.telemetry import table
from serving.telemetry.metrics import Metrics

log = logging.getLogger("pxserve.telemetry")

CAUSES = {"CANCELLED": "cancelled", "DEADLINE_MISSED": "late", "INTERNAL": "failed"}  # by the error's reason
Key = tuple[str, str]
SHUTDOWN = "shutdown"  # every other reason: draining, unloading, a lost device


class EngineMetrics:
    """An Observer; called by one thread."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def report(self, report: Report) -> None:
        """Enter a report; whatever goes wrong here must not reach the engine's loop."""
        try:
            for runs in report.runs:
                self._ran(runs)
            if report.ended:
                self._ended(report.ended)
            self._metrics.gauge(table.ROWS_QUEUED).set(report.rows_queued)
            self._metrics.gauge(table.ROWS_ACTIVE).set(report.rows_active)
            self._metrics.gauge(table.BACKLOG_SECONDS).set(report.backlog_s)
        except Exception:
            log.exception("a report of the engine was lost")

    def _ran(self, runs: Runs) -> None:
        metrics, model = self._metrics, self._metrics.model(runs.model)
        lane = (model, runs.component)
        metrics.many(table.STEP_SECONDS).observe((*lane, runs.phase), runs.seconds)
        metrics.many(table.BATCH_ROWS).observe(lane, runs.rows)
        metrics.counter(table.PADDED_ROWS_TOTAL, *lane).inc(runs.padded_rows)
        metrics.counter(table.NETWORK_EVALUATIONS_TOTAL, *lane).inc(int(runs.rows.sum()))
        metrics.gauge(table.ROWS_CAPACITY, *lane).set(runs.capacity)
        if not runs.steps:
            return
        if runs.family == "autoregressive":
            metrics.counter(table.TOKENS_TOTAL, model, "generated").inc(runs.steps)
            metrics.many(table.INTER_TOKEN_SECONDS).observe((model,), runs.gaps_s, runs.gap_rows)
        else:
            metrics.counter(table.STEPS_TOTAL, model).inc(runs.steps)
            metrics.many(table.STEP_INTERVAL_SECONDS).observe((model,), runs.gaps_s, runs.gap_rows)

    def _ended(self, ended: Sequence[Ended]) -> None:
        metrics = self._metrics
        for model in {one.model for one in ended}:
            mine, label = [one for one in ended if one.model == model], (metrics.model(model),)
            metrics.many(table.QUEUE_SECONDS).observe(label, [one.usage.queue_seconds for one in mine])
            answered = [one for one in mine if not one.reason and one.predicted_s >= table.PREDICTED_S]
            ratios = np.array([one.latency_s / one.predicted_s for one in answered])
            metrics.many(table.PREDICTION_RATIO).observe(label, ratios)
        spent, wasted = defaultdict[Key, float](float), defaultdict[Key, float](float)
        for one in ended:
            spent[one.model, one.share] += one.usage.device_seconds
            if one.reason:
                cause = CAUSES.get(one.reason, SHUTDOWN)
                wasted[one.model, cause] += one.usage.device_seconds
        for (model, share), seconds in spent.items():
            labels = (metrics.model(model), metrics.token(share))
            metrics.counter(table.DEVICE_SECONDS_TOTAL, *labels).inc(seconds)
        for (model, cause), seconds in wasted.items():
            metrics.counter(table.WASTED_DEVICE_SECONDS_TOTAL, metrics.model(model), cause).inc(seconds)
