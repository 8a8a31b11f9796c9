"""Metrics: the table is what is exported, and what the engine reports lands in it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from serving.engine.messages import Usage
from serving.engine.observer import Ended, Observer, Report, Runs
from serving.telemetry import table
from serving.telemetry.cores import cpu_cores
from serving.telemetry.cpu_wait import CpuWait
from serving.telemetry.engine_metrics import EngineMetrics
from serving.telemetry.labels import MOST_VALUES, Bounded
from serving.telemetry.metrics import Metrics
from serving.telemetry.table import TABLE


def exported(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def runs(**changes: Any) -> Runs:
    facts: dict[str, Any] = {
        "model": "digits", "family": "diffusion", "component": "denoiser", "phase": "step", "capacity": 64,
        "seconds": np.array([0.004, 0.006]), "rows": np.array([48, 16]), "padded_rows": 3, "steps": 60,
        "gaps_s": np.array([0.005, 0.3]), "gap_rows": np.array([40, 1]),
    }  # fmt: skip
    return Runs(**(facts | changes))


def ended(reason: str = "", share: str = "", seconds: float = 0.5) -> Ended:
    return Ended("digits", "sample", share, reason, Usage(300, seconds, 0.25), 3.0, 2.0)


SHORT = Ended("digits", "sample", "", "", Usage(1, 0.001, 0.0), 0.03, 0.002)  # about one tick


def report(*parts: Runs | Ended) -> Report:
    ran = tuple(part for part in parts if isinstance(part, Runs))
    left = tuple(part for part in parts if isinstance(part, Ended))
    return Report(ran, left, rows_queued=12, rows_active=34, backlog_s=1.5)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def engine(metrics: Metrics) -> Observer:
    return EngineMetrics(metrics)


def test_names_are_unique_prefixed_and_carry_their_unit() -> None:
    names = [metric.name for metric in TABLE]
    assert len(names) == len(set(names))
    units = "seconds|bytes|rows|ratio|total|active|queued|capacity|info|ready|alive|flight|cores"
    counts = {
        "pxserve_models",
        "pxserve_models_ready",
        "pxserve_ready",
        "pxserve_engine_alive",
        "pxserve_requests_in_flight",
    }
    for metric in TABLE:
        assert re.fullmatch(rf"pxserve_[a-z_]+_({units})", metric.name) or metric.name in counts
        assert metric.help
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert (metric.kind == "counter") == metric.name.endswith("_total")


def test_latency_is_resolved_from_a_millisecond_on() -> None:
    for metric in TABLE:
        if metric.name.endswith("_seconds") and metric.kind == "histogram":
            assert metric.buckets[0] <= 0.001
            assert metric.buckets == tuple(sorted(metric.buckets))


def test_runs_of_the_engine_land_in_the_table(metrics: Metrics, engine: Observer) -> None:
    engine.report(report(runs()))
    lane = {"model": "digits", "component": "denoiser"}
    assert value(metrics, "pxserve_step_seconds_count", **lane, phase="step") == 2
    assert value(metrics, "pxserve_step_seconds_sum", **lane, phase="step") == pytest.approx(0.01)
    assert value(metrics, "pxserve_step_seconds_bucket", **lane, phase="step", le="0.005") == 1
    assert value(metrics, "pxserve_batch_rows_sum", **lane) == 64
    assert value(metrics, "pxserve_batch_rows_bucket", **lane, le="16.0") == 1
    assert value(metrics, "pxserve_network_evaluations_total", **lane) == 64
    assert value(metrics, "pxserve_padded_rows_total", **lane) == 3
    assert value(metrics, "pxserve_rows_capacity", **lane) == 64
    assert value(metrics, "pxserve_steps_total", model="digits") == 60
    assert value(metrics, "pxserve_step_interval_seconds_count", model="digits") == 41
    assert value(metrics, "pxserve_step_interval_seconds_bucket", model="digits", le="0.005") == 40
    assert value(metrics, "pxserve_rows_queued") == 12
    assert value(metrics, "pxserve_rows_active") == 34
    assert value(metrics, "pxserve_backlog_seconds") == 1.5


def test_steps_of_autoregressive_models_are_tokens(metrics: Metrics, engine: Observer) -> None:
    engine.report(
        report(runs(family="autoregressive"), runs(family="autoregressive", phase="prefill", steps=0))
    )
    assert value(metrics, "pxserve_tokens_total", model="digits", kind="generated") == 60
    assert value(metrics, "pxserve_inter_token_seconds_count", model="digits") == 41
    assert value(metrics, "pxserve_steps_total", model="digits") is None


def test_endings_land_in_the_table_by_cause_and_token(metrics: Metrics, engine: Observer) -> None:
    reasons = ("", "CANCELLED", "DEADLINE_MISSED", "INTERNAL", "UNLOADING", "DRAINING")
    engine.report(report(*(ended(reason, "alice") for reason in reasons), ended(seconds=0.125), SHORT))
    assert value(metrics, "pxserve_device_seconds_total", model="digits", token="alice") == 3.0
    assert value(metrics, "pxserve_device_seconds_total", model="digits", token="") == 0.126
    for cause, seconds in {"cancelled": 0.5, "late": 0.5, "failed": 0.5, "shutdown": 1.0}.items():
        assert value(metrics, "pxserve_wasted_device_seconds_total", model="digits", cause=cause) == seconds
    assert value(metrics, "pxserve_queue_seconds_count", model="digits") == 8
    ratio = "pxserve_latency_prediction_ratio"
    assert value(metrics, f"{ratio}_count", model="digits") == 2  # answered ones, the short one left out
    assert value(metrics, f"{ratio}_sum", model="digits") == pytest.approx(3.0)


def test_a_wrong_report_is_lost_but_does_no_harm(
    metrics: Metrics, engine: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    engine.report(report(runs(rows=None)))
    assert "a report of the engine was lost" in caplog.text
    engine.report(report())
    assert value(metrics, "pxserve_rows_queued") == 12


def test_many_observations_are_counted_as_prometheus_client_counts_one_by_one() -> None:
    one, many = Metrics(), Metrics()
    values = [0.0, 0.001, 0.0015, 0.1, 0.1000001, 599.0, 600.0, 1e9]
    for number in values:
        one.histogram(table.REQUEST_SECONDS, "m", "sample", "OK").observe(number)
    many.many(table.QUEUE_SECONDS).observe(("m",), values)
    for bound in (*map(float, table.LATENCY_S), "+Inf"):
        labels = {"model": "m", "le": str(bound)}
        expected = value(one, "pxserve_request_seconds_bucket", **labels, operation="sample", code="OK")
        assert value(many, "pxserve_queue_seconds_bucket", **labels) == expected is not None


def test_both_expositions_are_well_formed(metrics: Metrics, engine: Observer) -> None:
    engine.report(report(runs(), ended("CANCELLED", 'a"\n\\b')))
    names = {family.name for family in text_string_to_metric_families(exported(metrics))}
    assert {"pxserve_step_seconds", "pxserve_device_seconds", "process_resident_memory_bytes"} <= names
    assert {"process_open_fds", "process_cpu_seconds", "python_gc_collections"} <= names
    metrics.histogram(table.REQUEST_SECONDS, "m", "sample", "OK").observe(0.1, {"trace_id": "ab" * 16})
    text = generate_openmetrics(metrics.registry).decode()  # type: ignore[no-untyped-call]
    assert re.search(r'pxserve_request_seconds_bucket{.*le="0.1".*} 1.0 # {trace_id="(ab){16}"} 0.1', text)
    assert "_created" not in text


def test_label_values_are_bounded_whatever_the_names_are(metrics: Metrics, engine: Observer) -> None:
    for number in range(MOST_VALUES + 50):
        name = f"{number}" + "x" * 1000
        engine.report(Report((runs(model=name),), (), 0, 0, 0.0))
    labels = {sample.labels["model"] for family in metrics.registry.collect() for sample in family.samples
              if family.name == "pxserve_steps"}  # fmt: skip
    assert len(labels) == MOST_VALUES + 1
    assert "other" in labels
    assert max(map(len, labels)) == 64


def test_a_bounded_label_keeps_what_it_gave() -> None:
    bounded = Bounded(2)
    assert [bounded(name) for name in ("a", "b", "c", "a", "", "c")] == ["a", "b", "other", "a", "", "other"]


def test_two_servers_of_one_process_do_not_share_metrics() -> None:
    one, other = Metrics(), Metrics()
    EngineMetrics(one).report(report())
    assert value(other, "pxserve_backlog_seconds") == 0.0


def test_the_engine_s_own_process_is_watched_beside_this_one(metrics: Metrics) -> None:
    pids: list[int] = []
    metrics.watch_engine(lambda: pids[0] if pids else None)
    assert value(metrics, "pxserve_engine_process_resident_memory_bytes") is None
    assert value(metrics, "pxserve_cpu_wait_seconds_total", process="engine") is None
    pids.append(os.getpid())
    shown = value(metrics, "pxserve_engine_process_resident_memory_bytes")
    assert shown is not None
    assert shown > 1e6


def test_waiting_for_a_core_adds_up_over_threads_and_never_falls(tmp_path: Path) -> None:
    def tell(**threads: int) -> None:
        for folder in (tmp_path / "7" / "task").glob("*"):
            (folder / "schedstat").unlink()
            folder.rmdir()
        for number, waited_ns in threads.items():
            (tmp_path / "7" / "task" / number[1:]).mkdir(parents=True)
            (tmp_path / "7" / "task" / number[1:] / "schedstat").write_text(f"99 {waited_ns} 5\n")

    wait = CpuWait({"server": lambda: 7, "engine": lambda: None}, tmp_path)
    shown = [None, *({"_1": 10**9, "_2": 5 * 10**8}, {"_1": 2 * 10**9}, {"_1": 2 * 10**9, "_3": 10**8})]
    totals = []
    for threads in shown:
        tell(**(threads or {}))
        (family,) = wait.collect()
        totals.append([(sample.labels["process"], sample.value) for sample in family.samples])
    assert totals == [[], [("server", 1.5)], [("server", 2.5)], [("server", 2.6)]]


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "25000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.25),
        ({}, None),
    ],
)
def test_cores_are_those_of_the_affinity_within_the_quota(
    tmp_path: Path, files: dict[str, str], cores: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_cores(tmp_path) == (len(os.sched_getaffinity(0)) if cores is None else cores)
