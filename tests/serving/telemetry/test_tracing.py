"""Spans over real gRPC: whose child a call is, where its time went, and that nobody pays for none."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import SpanKind, StatusCode

from pxserve import Client
from pxserve.v1 import sample_pb2
from serving.api.app import App
from serving.engine.messages import Failed, Finished, ModelKey, Options, Stage, Usage
from serving.errors import Internal
from serving.families.request import Request
from serving.telemetry.traceparent import sampled_trace
from serving.telemetry.tracing import OpenTelemetry
from tests.serving.api.fake_engine import FakeEngine, FakeTicket
from tests.serving.api.fake_models import DIGITS, models_in, read_fake
from tests.serving.api.served import Served
from tests.serving.api.test_streams import wait_for

SAMPLE = sample_pb2.SampleRequest(model=DIGITS, n=2, seed=1)
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
RUN_S = 0.05


class StagedEngine(FakeEngine):
    """Tells the stages of traced requests, as the engine does."""

    def submit(self, key: ModelKey, request: Request, options: Options) -> FakeTicket:
        ticket = super().submit(key, request, options)
        last = ticket.events[-1]
        if options.traced and isinstance(last, Finished):
            begun_s = time.monotonic()
            time.sleep(RUN_S)
            stages = (
                Stage("decoder", "prefill", begun_s, begun_s + RUN_S / 5, 1, RUN_S / 5, 1, 1),
                Stage("decoder", "steps", begun_s + RUN_S / 5, begun_s + RUN_S, 10, RUN_S / 2, 20, 80),
            )
            ticket.events[-1] = Finished(last.result, Usage(21, 0.01, 0.001), stages)
        return ticket


class Traced(Served):
    """A server whose spans stay in memory."""

    def __init__(self, models: Path, ratio: float = 1.0) -> None:
        super().__init__(models)
        self.engine = StagedEngine()
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=ParentBasedTraceIdRatio(ratio), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = OpenTelemetry(provider, "1")

    async def _made(self) -> App:
        return App(self.config, self.engine, self.metrics, read_fake, self.tracing)

    def spans(self) -> dict[str, ReadableSpan]:
        """Finished ones by name, once the call's own is among them."""
        wait_for(lambda: any(span.name.startswith("pxserve ") for span in self.exporter.get_finished_spans()))
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[Traced]:
    with Traced(models_in(tmp_path / "models")) as served:
        yield served


@pytest.fixture
def rare(tmp_path: Path) -> Iterator[Traced]:
    with Traced(models_in(tmp_path / "models"), ratio=0.0) as served:
        yield served


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    number: int = span.context.span_id
    return number


def times(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


def test_a_call_is_a_child_of_its_caller_s_span(traced: Traced) -> None:
    traced.call("Sample", SAMPLE, (("traceparent", SAMPLED), ("x-request-id", "mine")))
    span = traced.spans()["pxserve sample"]
    assert trace_of(span) == TRACE
    assert f"{parent_of(span):016x}" == PARENT
    assert span.kind is SpanKind.SERVER
    assert span.attributes is not None
    facts = {"pxserve.request_id": "mine", "pxserve.model": DIGITS, "pxserve.rows": 2,
             "rpc.grpc.status_code": 0, "pxserve.network_evaluations": 21}  # fmt: skip
    assert facts.items() <= dict(span.attributes).items()
    assert span.status.status_code is StatusCode.UNSET


def test_the_spans_of_a_call_say_where_its_time_went(traced: Traced) -> None:
    traced.call("Sample", SAMPLE)
    spans = traced.spans()
    whole, run = spans["pxserve sample"], spans["pxserve.run"]
    order = ["pxserve.prepare", "pxserve.queue", "pxserve.run", "pxserve.reply"]
    for name in order:
        assert parent_of(spans[name]) == id_of(whole)
    for before, after in pairwise(order):
        assert abs(times(spans[before])[1] - times(spans[after])[0]) < 2000  # nanoseconds of rounding
    assert times(spans["pxserve.prepare"])[0] - times(whole)[0] < 5e6
    assert abs(times(spans["pxserve.reply"])[1] - times(whole)[1]) < 2000
    for name in ("pxserve.prefill", "pxserve.steps"):
        assert parent_of(spans[name]) == id_of(run)
    steps = spans["pxserve.steps"].attributes
    assert steps is not None
    assert (steps["pxserve.runs"], steps["pxserve.network_rows"], steps["pxserve.mean_batch_rows"]) == (
        10,
        20,
        8,
    )
    assert steps["pxserve.component"] == "decoder"
    begun, ended = times(spans["pxserve.steps"])
    assert (ended - begun) / 1e9 == pytest.approx(RUN_S * 0.8, abs=1e-4)


def test_streams_have_the_same_spans(traced: Traced) -> None:
    list(traced.stream("StreamSample", sample_pb2.StreamSampleRequest(request=SAMPLE)))
    assert {"pxserve.queue", "pxserve.steps", "pxserve.reply"} < traced.spans().keys()
    assert "pxserve stream_sample" in traced.spans()


def test_an_error_has_its_reason_and_the_spans_that_were_reached(traced: Traced) -> None:
    traced.engine.failure = Failed(Internal("broken"))
    traced.refused("Sample", SAMPLE)
    spans = traced.spans()
    span = spans["pxserve sample"]
    assert span.attributes is not None
    assert span.attributes["pxserve.reason"] == "INTERNAL"
    assert span.status.status_code is StatusCode.ERROR
    assert "pxserve.prepare" in spans
    traced.exporter.clear()
    traced.refused("Sample", sample_pb2.SampleRequest(model="nobody"))
    span = traced.spans()["pxserve sample"]
    assert span.status.status_code is StatusCode.UNSET  # the caller's mistake, not the server's
    assert span.attributes is not None
    assert span.attributes["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]


def test_the_caller_decides_for_its_own_trace_and_the_ratio_for_the_others(rare: Traced) -> None:
    for _ in range(5):
        rare.call("Sample", SAMPLE)
    rare.call("Sample", SAMPLE, (("traceparent", UNSAMPLED),))
    rare.call("Sample", SAMPLE, (("traceparent", "no such thing"),))
    assert not rare.exporter.get_finished_spans()
    assert not any(options.traced for _, _, options in rare.engine.requests)
    rare.call("Sample", SAMPLE, (("traceparent", SAMPLED),))
    assert trace_of(rare.spans()["pxserve sample"]) == TRACE


def test_health_checks_are_not_traced(traced: Traced) -> None:
    from grpc_health.v1 import health_pb2

    traced.call("Check", health_pb2.HealthCheckRequest())
    assert not traced.exporter.get_finished_spans()


def test_the_client_passes_the_active_span_on(traced: Traced) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("application")
    with Client(f"127.0.0.1:{traced.app.port}", timeout_s=10) as client:
        with tracer.start_as_current_span("work") as work:
            client.sample(DIGITS, 2)
        mine = f"{work.get_span_context().trace_id:032x}"
        assert trace_of(traced.spans()["pxserve sample"]) == mine
        traced.exporter.clear()
        client.sample(DIGITS, 2)
        assert trace_of(traced.spans()["pxserve sample"]) != mine


HIDDEN = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Hidden())
"""


def without_opentelemetry(program: str) -> subprocess.CompletedProcess[str]:
    """Run Python as if the packages were not installed."""
    command = [sys.executable, "-c", HIDDEN + program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_without_the_packages_the_flag_says_what_to_install(tmp_path: Path) -> None:
    program = f"""
from serving.cli import main
sys.exit(main(["--models", {str(tmp_path)!r}, "--otlp-endpoint", "http://127.0.0.1:4317"]))
"""
    done = without_opentelemetry(program)
    assert done.returncode == 2
    assert "pip install 'pxserve-server[tracing]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_packages_server_and_client_work(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from pxserve import Client
from tests.serving.api.served import Served
from tests.serving.api.fake_models import DIGITS, models_in
with Served(models_in(Path({str(tmp_path)!r}) / "models")) as served:
    with Client(f"127.0.0.1:{{served.app.port}}", timeout_s=10) as client:
        print(client.sample(DIGITS, 3).data.shape)
assert not any(name.startswith("opentelemetry") for name in sys.modules)
"""
    done = without_opentelemetry(program)
    assert done.stdout.strip() == "(3, 1, 8, 8)", done.stderr


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (SAMPLED, TRACE),
        (UNSAMPLED, ""),
        (f"00-{TRACE}-{PARENT}-03", TRACE),
        (f"01-{TRACE}-{PARENT}-01-of-a-later-version", TRACE),
        (f"00-{TRACE}-{PARENT}-01-more", ""),
        (f"ff-{TRACE}-{PARENT}-01", ""),
        (f"00-{'0' * 32}-{PARENT}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE.upper()}-{PARENT}-01", ""),
        ("", ""),
        ("x" * 5000, ""),
    ],
)
def test_traceparent_is_read_as_w3c_says(header: str, trace: str) -> None:
    assert sampled_trace([("user-agent", "x"), ("traceparent", header)]) == trace
    assert sampled_trace([("traceparent", b"bytes")]) == ""
