"""What calls leave in the metrics: latencies, their parts, refusals, exemplars; of hostile names nothing."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest

from pxserve.v1 import inpaint_pb2, likelihood_pb2, model_service_pb2, sample_pb2
from serving.api.convert.tensors import tensor_of
from serving.engine.messages import Failed
from serving.errors import Internal, ResourceExhausted
from tests.serving.api.fake_models import CLOUD, DIGITS, LETTERS, models_in
from tests.serving.api.served import Served
from tests.serving.api.test_streams import wait_for

SAMPLE = sample_pb2.SampleRequest(model=DIGITS, n=2, seed=1)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADER = f"00-{TRACE}-00f067aa0ba902b7-01"


def value(served: Served, name: str, **labels: str) -> float:
    return served.metrics.registry.get_sample_value(name, labels) or 0.0


def series(served: Served) -> int:
    return sum(len(family.samples) for family in served.metrics.registry.collect())


def requests(served: Served, code: str, operation: str = "sample", model: str = DIGITS) -> float:
    return value(served, "pxserve_request_seconds_count", model=model, operation=operation, code=code)


def test_counters_of_a_ready_model_begin_at_zero(own: Served) -> None:
    registry = own.metrics.registry
    for name, labels in {
        "pxserve_rejections_total": {"model": DIGITS, "reason": "INTERNAL"},
        "pxserve_wasted_device_seconds_total": {"model": DIGITS, "cause": "late"},
        "pxserve_device_seconds_total": {"model": DIGITS, "token": ""},
        "pxserve_network_evaluations_total": {"model": DIGITS, "component": "net"},
        "pxserve_rows_total": {"model": DIGITS, "operation": "likelihood"},
    }.items():
        assert registry.get_sample_value(name, labels) == 0.0
    cloud = {"model": CLOUD, "operation": "likelihood"}
    assert registry.get_sample_value("pxserve_rows_total", cloud) is None  # a GAN has no density


def test_the_phases_of_answered_calls_add_up_to_their_latency(own: Served) -> None:
    for _ in range(5):
        own.call("Sample", SAMPLE)
    parts = {
        phase: value(own, "pxserve_request_phase_seconds_sum", model=DIGITS, phase=phase)
        for phase in ("prepare", "queue", "run", "reply")
    }
    whole = value(own, "pxserve_request_seconds_sum", model=DIGITS, operation="sample", code="OK")
    assert sum(parts.values()) == pytest.approx(whole)
    assert parts["prepare"] > 0
    assert parts["queue"] + parts["run"] > 0
    assert value(own, "pxserve_request_phase_seconds_count", model=DIGITS, phase="run") == 5


def test_refusals_count_by_model_and_reason(own: Served) -> None:
    own.engine.refusal = ResourceExhausted("full")
    own.refused("Sample", SAMPLE)
    own.engine.refusal = None
    own.engine.failure = Failed(Internal("broken"))
    own.refused("Sample", SAMPLE)
    own.refused("Sample", sample_pb2.SampleRequest(model=DIGITS, n=-1))
    for reason in ("QUEUE_FULL", "INTERNAL", "INVALID_ARGUMENT"):
        assert value(own, "pxserve_rejections_total", model=DIGITS, reason=reason) == 1
    assert requests(own, "RESOURCE_EXHAUSTED") == 1
    assert value(own, "pxserve_request_phase_seconds_count", model=DIGITS, phase="run") == 0


def test_a_caller_that_leaves_counts_as_cancelled_and_a_late_one_as_missed(own: Served) -> None:
    own.engine.hangs = True
    call = own.future("Sample", SAMPLE)
    wait_for(lambda: value(own, "pxserve_requests_in_flight", operation="sample") == 1)
    call.cancel()
    wait_for(lambda: requests(own, "CANCELLED") == 1)
    with pytest.raises(grpc.RpcError):
        own.call("Sample", SAMPLE, timeout_s=0.2)
    wait_for(lambda: requests(own, "DEADLINE_EXCEEDED") == 1)
    assert value(own, "pxserve_rejections_total", model=DIGITS, reason="CANCELLED") == 1
    assert value(own, "pxserve_rejections_total", model=DIGITS, reason="DEADLINE_MISSED") == 1
    assert value(own, "pxserve_requests_in_flight", operation="sample") == 0


def test_a_stream_tells_when_its_first_event_went_out(own: Served) -> None:
    list(own.stream("StreamSample", sample_pb2.StreamSampleRequest(request=SAMPLE, preview_every_steps=1)))
    list(own.stream("StreamSample", sample_pb2.StreamSampleRequest(request=SAMPLE)))
    letters = sample_pb2.SampleRequest(model=LETTERS, n=2)
    list(own.stream("StreamSample", sample_pb2.StreamSampleRequest(request=letters)))
    data = own.call("Sample", SAMPLE).data
    scoring = likelihood_pb2.LikelihoodRequest(model=DIGITS, data=data)
    list(own.stream("StreamLikelihood", likelihood_pb2.StreamLikelihoodRequest(request=scoring)))
    for model, kind in ((DIGITS, "preview"), (DIGITS, "row"), (LETTERS, "token"), (DIGITS, "estimate")):
        assert value(own, "pxserve_first_event_seconds_count", model=model, kind=kind) == 1, kind
    assert requests(own, "OK", "stream_sample") == 2


def test_answered_rows_and_prompts_are_counted(own: Served) -> None:
    data = own.call("Sample", SAMPLE).data
    observed = tensor_of(np.ones((1, 8, 8), np.bool_))
    own.call("Inpaint", inpaint_pb2.InpaintRequest(model=DIGITS, data=data, observed=observed, n=3))
    assert value(own, "pxserve_rows_total", model=DIGITS, operation="sample") == 2
    assert value(own, "pxserve_rows_total", model=DIGITS, operation="inpaint") == 6
    prompted = sample_pb2.SampleRequest(model=LETTERS, n=3)
    prompted.prompt.texts.texts.append("hello")
    own.call("Sample", prompted)
    assert value(own, "pxserve_tokens_total", model=LETTERS, kind="prompt") == 15


def ask_for(served: Served, *names: str) -> None:
    for name in names:
        served.refused("Sample", sample_pb2.SampleRequest(model=name))
        served.refused("GetModel", model_service_pb2.GetModelRequest(model=name))


def test_hostile_names_leave_no_series(own: Served) -> None:
    ask_for(own, "", "nobody")
    before = series(own)
    names = ["x" * 5000, 'a"b\n\\c{}', "../../etc/passwd", "\u202e\u0000", DIGITS.upper(), f"{DIGITS} "]
    ask_for(own, *names, *(f"model-{number}" for number in range(40)))
    with pytest.raises(grpc.RpcError):
        own.raw("/pxserve.v1.GenerativeService/NoSuchMethod", b"")
    assert series(own) == before
    models = {s.labels.get("model", "") for f in own.metrics.registry.collect() for s in f.samples}
    assert models == {"", DIGITS, LETTERS, CLOUD}


def test_a_latency_has_the_trace_of_its_caller_as_exemplar(tmp_path: Path) -> None:
    with Served(models_in(tmp_path / "models"), metrics="127.0.0.1:0") as served:
        served.call("Sample", SAMPLE, (("traceparent", HEADER),))
        address = f"http://127.0.0.1:{served.app.metrics_port}/metrics"
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        with urllib.request.urlopen(urllib.request.Request(address, headers=accept)) as page:
            text = page.read().decode()
        with urllib.request.urlopen(address) as page:
            plain = page.read().decode()
    assert text.rstrip().endswith("# EOF")
    assert f'# {{trace_id="{TRACE}"}}' in text
    assert "trace_id" not in plain


def test_gauges_of_a_model_go_with_it_and_its_counters_stay(own: Served) -> None:
    own.call("Sample", SAMPLE)
    gone = {"model": DIGITS, "version": "1"}
    registry = own.metrics.registry
    assert registry.get_sample_value("pxserve_load_seconds", gone) == 0.25
    assert registry.get_sample_value("pxserve_model_memory_bytes", gone | {"kind": "weights"}) == 1024
    assert registry.get_sample_value("pxserve_models", {"state": "ready"}) == 3
    own.call("UnloadModel", model_service_pb2.UnloadModelRequest(model=DIGITS))
    assert registry.get_sample_value("pxserve_load_seconds", gone) is None
    assert registry.get_sample_value("pxserve_model_memory_bytes", gone | {"kind": "cache"}) is None
    assert registry.get_sample_value("pxserve_models", {"state": "unloaded"}) == 1
    assert requests(own, "OK") == 1
    own.call("LoadModel", model_service_pb2.LoadModelRequest(model=DIGITS, wait=True))
    assert registry.get_sample_value("pxserve_load_seconds", gone) == 0.25
    info = [s.labels for f in registry.collect() for s in f.samples if s.name == "pxserve_model_info"]
    assert {"model": DIGITS, "family": "vae", "kernels": "reference"}.items() <= next(
        labels.items() for labels in info if labels["model"] == DIGITS
    )


def test_readiness_and_liveness_are_watched(own: Served) -> None:
    def both() -> tuple[float, float]:
        return value(own, "pxserve_ready"), value(own, "pxserve_engine_alive")

    wait_for(lambda: both() == (1, 1))
    own.engine.alive = False
    wait_for(lambda: both() == (0, 0))
    own.engine.alive = True


def test_calls_are_entered_where_nobody_scrapes(own: Served) -> None:
    own.call("Sample", SAMPLE)
    wait_for(lambda: not own.app._calls._waiting)


def test_the_event_loop_s_lag_is_watched(own: Served) -> None:
    wait_for(lambda: value(own, "pxserve_event_loop_lag_seconds_count") >= 2)
    import asyncio
    import time

    async def block() -> None:
        await asyncio.sleep(0)
        time.sleep(0.35)  # noqa: ASYNC251

    before = value(own, "pxserve_event_loop_lag_seconds_sum")
    own.do(block())
    wait_for(lambda: value(own, "pxserve_event_loop_lag_seconds_sum") - before > 0.2)


def test_a_server_that_drains_is_not_ready(own: Served) -> None:
    own.engine.hangs = True
    call = own.future("Sample", SAMPLE)
    wait_for(lambda: value(own, "pxserve_requests_in_flight", operation="sample") == 1)
    ending = own.begin(own.app.shut_down())
    wait_for(lambda: value(own, "pxserve_ready") == 0)
    own.engine.tickets[0].finish()
    call.result(10)
    ending.result(10)
    assert requests(own, "OK") == 1
