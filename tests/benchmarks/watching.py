"""What metrics and traces cost: their own time, where they run, over that of the tick or call around them."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deploy.demo.server import serving
from pxserve import Client
from serving.engine.messages import Options
from serving.telemetry import table
from serving.telemetry.engine_metrics import EngineMetrics
from serving.telemetry.metrics import Metrics
from tests.benchmarks.engines import MODELS, Loaded, add
from tests.benchmarks.figures import Figure

TITLE = "What watching costs"
TICKS, CALLS = 400, 400
SCRAPE_EVERY_S = 15.0


@dataclass
class Spent:
    """Processor seconds in some functions: waits for the interpreter's lock or a core are not theirs.

    After a network run reading the clock costs microseconds by itself; that is measured each time, too.
    """

    seconds: float = 0.0
    calls: int = 0

    def watch(self, owner: Any, name: str) -> Callable[[], None]:
        """Time ``owner.name`` from now on; what undoes it."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def timed(*arguments: Any, **named: Any) -> Any:
            before, begun = time.thread_time(), time.thread_time()
            try:
                return original(*arguments, **named)
            finally:
                self.seconds += time.thread_time() - begun - (begun - before)
                self.calls += 1

        setattr(owner, name, timed)
        return lambda: setattr(owner, name, original)


def run() -> list[Figure]:
    """Shares of a tick, of a call, of the time between scrapes; and rows observed one by one or at once."""
    figures = []
    for rows in (64, 1):
        share, own_us = tick_share(rows)
        figures.append(Figure(TITLE, f"metrics, of a tick of {rows} rows", share, 0.01, "at most", ""))
        figures.append(Figure(TITLE, f"metrics, per tick of {rows} rows", own_us, unit="µs"))
    for traced in (False, True):
        name = "with every call traced" if traced else "without tracing"
        cost = call_cost(traced)
        share = cost.waits_us / cost.call_us
        figures.append(Figure(TITLE, f"metrics, of the cheapest call, {name}", share, 0.01, "at most", ""))
        figures.append(Figure(TITLE, f"metrics that a call waits for, {name}", cost.waits_us, unit="µs"))
        figures.append(Figure(TITLE, f"metrics entered later, per call, {name}", cost.later_us, unit="µs"))
        figures.append(Figure(TITLE, f"spans, per call, {name}", cost.spans_us, unit="µs"))
        figures.append(Figure(TITLE, f"the call, {name}", cost.call_us, unit="µs"))
    size_kb, scrape_ms = scrape()
    figures.append(Figure(TITLE, "a scrape of nine models", scrape_ms, unit="ms"))
    figures.append(Figure(TITLE, "its size", size_kb, unit="kB"))
    share = scrape_ms / 1e3 / SCRAPE_EVERY_S
    figures.append(Figure(TITLE, "scraping every 15 s, of the time", share, 0.01, "at most", ""))
    figures.append(
        Figure(TITLE, "64 rows observed one by one over all at once", one_by_one(), 3, "at least", "x")
    )
    return figures


def tick_share(rows: int) -> tuple[float, float]:
    """Share of the engine's ticks that recording and reporting take, and their microseconds per tick."""
    from serving.engine.engine import Engine

    engine = Engine(threads=torch.get_num_threads(), queue_rows=1 << 20, metrics=EngineMetrics(Metrics()))
    loaded = Loaded(engine, add(engine, MODELS / "digits-diffusion" / "1"))
    worker, spent = loaded.engine._worker, Spent()
    for seed in range(rows):
        loaded.engine.submit(loaded.model.key, loaded.sample("ddim", TICKS, 1, seed), Options())
    with torch.inference_mode():
        worker._between_ticks()
        spent.watch(worker._recorder, "ran")
        spent.watch(worker._recorder, "report")
        begun = time.perf_counter()
        while (lane := worker._turns.choose(worker._lanes)) is not None:
            worker._tick(lane)
            worker._between_ticks()
        whole = time.perf_counter() - begun
    return spent.seconds / whole, spent.seconds / TICKS * 1e6


@contextmanager
def serving_here(tracing: Any) -> Iterator[str]:
    """A server on a thread of this process, so that its functions can be timed; the address."""
    from export.package.read import read_package
    from serving.api.app import App
    from serving.config import Config
    from serving.engine.engine import Engine

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    metrics = Metrics()
    engine = Engine(metrics=EngineMetrics(metrics))
    config = Config(models=str(MODELS), listen="127.0.0.1:0", metrics="", drain_s=1.0, log_level="warning")

    async def made() -> App:
        app = App(config, engine, metrics, read_package, tracing)
        await app.start()
        return app

    app = asyncio.run_coroutine_threadsafe(made(), loop).result(60)
    try:
        yield f"127.0.0.1:{app.port}"
    finally:
        asyncio.run_coroutine_threadsafe(app.shut_down(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@dataclass(frozen=True)
class Cost:
    """Microseconds per call: of what it waits for, of what happens later, of spans, of all of it."""

    waits_us: float
    later_us: float
    spans_us: float
    call_us: float


def call_cost(traced: bool) -> Cost:
    """Of the cheapest call there is, a GAN's sample, one after another."""
    from serving.api import rpc
    from serving.engine.ledger import Ledger
    from serving.engine.recorder import Recorder
    from serving.telemetry import tracing as module
    from serving.telemetry.calls import CallMetrics

    tracing = exporting() if traced else module.NoTracing()
    waits, later, spans, usage = Spent(), Spent(), Spent(), Spent()
    with ExitStack() as stack, serving_here(tracing) as target, Client(target) as client:
        client.sample("digits-gan", 1)
        for owner, name in ((CallMetrics, "begin"), (CallMetrics, "leave"), (CallMetrics, "add"),
                            (rpc, "answered"), (Recorder, "ended"), (Recorder, "ran")):  # fmt: skip
            stack.callback(waits.watch(owner, name))
        stack.callback(usage.watch(Ledger, "usage"))  # inside of ``ended``, but the answer's own
        stack.callback(later.watch(CallMetrics, "enter"))
        stack.callback(later.watch(Recorder, "report"))
        stack.callback(spans.watch(type(tracing), "begin"))
        stack.callback(spans.watch(module.Recording if traced else module.Untraced, "end"))
        begun = time.perf_counter()
        for seed in range(CALLS):
            client.sample("digits-gan", 1, seed=seed)
        whole = time.perf_counter() - begun
    own = waits.seconds - usage.seconds
    return Cost(*(seconds / CALLS * 1e6 for seconds in (own, later.seconds, spans.seconds, whole)))


def exporting() -> Any:
    """Spans of every call, batched and serialised as for a collector, and then dropped."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    from serving.telemetry.tracing import OpenTelemetry

    class Dropped(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            encode_spans(spans).SerializeToString()
            return SpanExportResult.SUCCESS

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Dropped()))
    return OpenTelemetry(provider, "bench")


def scrape() -> tuple[float, float]:
    """Kilobytes and milliseconds of a scrape, in the middle of twenty, as Prometheus asks for it."""
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    with serving(MODELS, log=Path(os.devnull)) as server:
        with Client(server.target) as client:
            for model in ("digits-gan", "digits-vae", "digits-diffusion"):
                client.sample(model, 1)
        took = []
        for _ in range(20):
            request = urllib.request.Request(f"http://{server.metrics}/metrics", headers=accept)
            begun = time.perf_counter()
            with urllib.request.urlopen(request) as page:
                size = len(page.read())
            took.append(time.perf_counter() - begun)
    return size / 1e3, float(np.median(took)) * 1e3


def one_by_one() -> float:
    """How much longer 64 gaps between tokens take by prometheus_client's observe than by one call."""
    metrics = Metrics()
    single = metrics.histogram(table.REQUEST_SECONDS, "m", "sample", "OK")
    many = metrics.many(table.INTER_TOKEN_SECONDS)
    gaps = np.random.default_rng(0).exponential(0.02, 64)
    ratios = []
    for _ in range(200):
        begun = time.perf_counter()
        for gap in gaps.tolist():
            single.observe(gap)
        between = time.perf_counter()
        many.observe(("m",), gaps)
        ratios.append((between - begun) / (time.perf_counter() - between))
    return float(np.median(ratios))
