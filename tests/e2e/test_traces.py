"""A collector gets the spans of a real server, whose engine is a process of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider

from deploy.demo.server import Running, serving
from pxserve import Client

pytestmark = pytest.mark.xdist_group("e2e")

MODEL = "text-autoregressive"
WAIT_S = 20.0


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        self._more = threading.Condition()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        with self._more:
            for resource in request.resource_spans:
                names = {a.key: a.value.string_value for a in resource.resource.attributes}
                self.services.add(names["service.name"])
                for scope in resource.scope_spans:
                    self.spans += scope.spans
            self._more.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def trace(self, trace_id: bytes, name: str) -> dict[str, Any]:
        """The spans of one trace by name, once ``name`` is among them."""
        until = time.monotonic() + WAIT_S
        with self._more:
            while True:
                spans = {span.name: span for span in self.spans if span.trace_id == trace_id}
                if name in spans:
                    return spans
                assert time.monotonic() < until, f"no span {name!r}"
                self._more.wait(1.0)


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, str]]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    it = Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(it, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield it, f"http://127.0.0.1:{port}"
    server.stop(None).wait(5)


@pytest.fixture(scope="module")
def traced(
    models: Path, collector: tuple[Collector, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    one = tmp_path_factory.mktemp("one")
    (one / MODEL).symlink_to(models / MODEL)
    flags = ("--otlp-endpoint", collector[1], "--engine", "process", "--trace-sample-ratio", "0")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")  # milliseconds, in place of five seconds
        with serving(one, log=one.parent / "traced.log", flags=flags) as running:
            yield running


def test_a_prompted_sample_shows_queue_prefill_and_steps(
    traced: Running, collector: tuple[Collector, str]
) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("application")
    with Client(traced.target, timeout_s=60) as client:
        client.get_model(MODEL)
        with tracer.start_as_current_span("ask") as asking:
            client.sample(MODEL, 2, prompt=["The import statement " * 6] * 2, max_new_tokens=20, seed=1)
        client.sample(MODEL, 1, max_new_tokens=5)  # nobody's trace, and the ratio is 0
    context = asking.get_span_context()
    spans = collector[0].trace(context.trace_id.to_bytes(16, "big"), "pxserve sample")
    assert collector[0].services == {"pxserve"}
    whole = spans["pxserve sample"]
    assert whole.parent_span_id == context.span_id.to_bytes(8, "big")
    phases = ["pxserve.prepare", "pxserve.queue", "pxserve.run", "pxserve.reply"]
    assert {spans[name].parent_span_id for name in phases} == {whole.span_id}
    run, prefill, steps = spans["pxserve.run"], spans["pxserve.prefill"], spans["pxserve.steps"]
    assert {prefill.parent_span_id, steps.parent_span_id} == {run.span_id}
    counts = {a.key: a.value.int_value for a in steps.attributes}
    assert 19 <= counts["pxserve.runs"] <= 40
    assert counts["pxserve.network_rows"] == 40
    # The engine's clock is the server's: all lies within the call, in order.
    assert whole.start_time_unix_nano <= run.start_time_unix_nano <= prefill.start_time_unix_nano + 1_000_000
    assert prefill.start_time_unix_nano < steps.end_time_unix_nano <= run.end_time_unix_nano
    assert len({span.trace_id for span in collector[0].spans}) == 1
