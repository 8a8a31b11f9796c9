"""Metrics: the table is what is exported, and the engine's reports land in it."""

from __future__ import annotations

import re

from prometheus_client import generate_latest

from serving.engine.messages import Usage
from serving.engine.observer import Observer
from serving.telemetry.metrics import TABLE, EngineMetrics, Metrics


def exported(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_names_are_unique_prefixed_and_carry_their_unit() -> None:
    names = [metric.name for metric in TABLE]
    assert len(names) == len(set(names))
    for metric in TABLE:
        assert re.fullmatch(
            r"pxserve_[a-z_]+(seconds|bytes|rows|total|active|queued|capacity|ready|info)", metric.name
        )
        assert metric.help
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert metric.kind != "counter" or metric.name.endswith("_total")


def test_latency_is_resolved_from_a_millisecond_on() -> None:
    latencies = [metric for metric in TABLE if metric.name == "pxserve_request_seconds"]
    assert latencies[0].buckets[0] == 0.001


def test_engine_reports_land_in_the_table() -> None:
    metrics = Metrics()
    engine: Observer = EngineMetrics(metrics)
    engine.tick("digits", "denoiser", 0.004, 48, 64)
    engine.tick("digits", "denoiser", 0.004, 16, 64)
    engine.finished("digits", Usage(300, 0.5, 0.25))
    engine.queue(12, 34)
    engine.backlog(1.5)
    text = exported(metrics)
    labels = 'component="denoiser",model="digits"'
    for line in (
        f"pxserve_step_seconds_count{{{labels}}} 2.0",
        f"pxserve_batch_rows_sum{{{labels}}} 64.0",
        f"pxserve_rows_capacity{{{labels}}} 64.0",
        'pxserve_network_evaluations_total{model="digits"} 300.0',
        'pxserve_device_seconds_total{model="digits"} 0.5',
        "pxserve_rows_queued 12.0",
        "pxserve_rows_active 34.0",
        "pxserve_backlog_seconds 1.5",
    ):
        assert line in text


def test_two_servers_of_one_process_do_not_share_metrics() -> None:
    one, other = Metrics(), Metrics()
    EngineMetrics(one).backlog(7.0)
    assert "pxserve_backlog_seconds 0.0" in exported(other)
