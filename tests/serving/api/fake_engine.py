"""An engine that answers at once, deterministically, without networks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from export.package.read import Package
from export.package.schema import DataSpace, ModelSpec
from serving.engine.messages import (
    Advanced,
    Event,
    Failed,
    Finished,
    ModelKey,
    Options,
    Previewed,
    Quote,
    RowFinal,
    Usage,
)
from serving.families import result as results
from serving.families.calibration import Calibration
from serving.families.capability import Capability
from serving.families.request import Array, Operation, Request
from tests.serving.api.fake_models import CAPABILITIES, DIGITS, LATENT, SPECS


@dataclass(frozen=True)
class FakeModel:
    """A loaded model."""

    key: ModelKey
    spec: ModelSpec
    capabilities: tuple[Capability, ...]
    latent: DataSpace | None = None
    digest: str = "d" * 64
    determinism: str = "batch_invariant"
    tolerance: float | None = None
    max_rows_per_request: int = 64
    memory_bytes: int = 1024
    cache_bytes: int = 512
    dtype: str = "float32"
    device: str = "cpu"
    runtime: str = "fake 1"
    load_seconds: float = 0.25
    warmup_seconds: float = 0.5


class FakeTicket:
    """Events from a list; at ``None`` it waits until it is told to finish."""

    def __init__(self, events: Sequence[Event | None]) -> None:
        self.events = list(events)
        self.cancelled = False
        self._finish = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def cancel(self) -> None:
        """Remember it."""
        self.cancelled = True

    def finish(self) -> None:
        """Go on, from any thread."""
        self._loop.call_soon_threadsafe(self._finish.set)

    async def __aiter__(self) -> AsyncIterator[Event]:
        for event in self.events:
            if event is None:
                await self._finish.wait()
            else:
                yield event


@dataclass
class FakeEngine:
    """Answers at once. ``refusal`` is raised, ``failure`` comes as an event, ``hangs`` never answers."""

    alive: bool = False
    hangs: bool = False
    refusal: Exception | None = None
    failure: Failed | None = None
    slow_load: threading.Event | None = None
    slow_warming: threading.Event | None = None
    requests: list[tuple[ModelKey, Request, Options]] = field(default_factory=list)
    tickets: list[FakeTicket] = field(default_factory=list)
    unloaded: list[ModelKey] = field(default_factory=list)

    def reset(self) -> None:
        """As if just started; loaded models stay."""
        self.alive, self.hangs, self.refusal, self.failure = True, False, None, None
        self.slow_load = self.slow_warming = None
        self.requests, self.tickets, self.unloaded = [], [], []

    def start(self) -> None:
        """Alive from now on."""
        self.alive = True

    def stop(self, grace_s: float = 0.0) -> None:
        """Not alive any more."""
        self.alive = False

    def load(
        self,
        key: ModelKey,
        package: Package,
        calibration: Calibration | None = None,
        warming: Callable[[], object] = lambda: None,
    ) -> FakeModel:
        """At once, unless ``slow_load`` (or, once it warms, ``slow_warming``) is to be waited for."""
        if self.slow_load is not None:
            self.slow_load.wait(10.0)
        warming()
        if self.slow_warming is not None:
            self.slow_warming.wait(10.0)
        return FakeModel(key, package.spec, CAPABILITIES[key.name], LATENT if key.name == DIGITS else None)

    def unload(self, key: ModelKey) -> None:
        """Remember it."""
        self.unloaded.append(key)

    def quote(self, key: ModelKey, request: Request) -> Quote:
        """One evaluation per row and step."""
        return Quote({"net": 10 * request.rows}, 0.5, 0.25)

    def submit(self, key: ModelKey, request: Request, options: Options) -> FakeTicket:
        """The events of ``request``, all at once."""
        if self.refusal is not None:
            raise self.refusal
        self.requests.append((key, request, options))
        ticket = FakeTicket(self._events(key, request, options))
        self.tickets.append(ticket)
        return ticket

    def _events(self, key: ModelKey, request: Request, options: Options) -> list[Event | None]:
        queued = Advanced(0, 20, 1.5, queued=True)
        if self.failure is not None:
            return [self.failure]
        result = answer_to(SPECS[key.name], request)
        finished = Finished(result, Usage(10 * request.rows, 0.125, 0.0625))
        if self.hangs:
            return [queued, None, finished]
        if not options.stream:
            return [finished]
        return [queued, *_streamed(result, options), finished]


def _streamed(result: results.Result, options: Options) -> list[Event]:
    """Half a row as a preview, then the row, for all rows but the last."""
    if isinstance(result, results.Scored):
        return [Advanced(10, 20, 0.5, queued=False, partial=result)]
    assert isinstance(result, results.Sampled | results.Completed)
    rows = (
        result.data
        if isinstance(result, results.Sampled)
        else result.data.reshape(-1, *result.data.shape[2:])
    )
    lengths = None if result.lengths is None else np.ravel(result.lengths)
    events: list[Event] = []
    for index in range(len(rows) - 1):
        length = None if lengths is None else int(lengths[index])
        if options.preview_every_steps:
            half = None if length is None else length // 2
            events.append(Previewed(index, 5, rows[index], half))
        events.append(RowFinal(index, rows[index], length))
    return events


def drawn(spec: ModelSpec, seed: int, row: int) -> Array:
    """One row as a function of seed and row number alone."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, row], np.uint64)))
    shape = tuple(spec.data.max_length if size == -1 else size for size in spec.data.shape)
    if spec.data.levels:
        return generator.integers(0, min(spec.data.levels, 256), shape).astype(spec.data.dtype)
    return generator.standard_normal(shape).astype(spec.data.dtype)


def answer_to(spec: ModelSpec, request: Request) -> results.Result:
    """A well-formed result of the right type and shapes."""
    rows = request.rows
    data = np.stack([drawn(spec, request.seed, request.first_row + row) for row in range(rows)])
    lengths = np.full(rows, data.shape[1], np.int32) if spec.data.variable else None
    numbers = np.arange(rows, dtype=np.float64)
    latents = np.zeros((rows, 4), np.float32)
    match request.operation:
        case Operation.SAMPLE:
            reasons = (results.FinishReason.LENGTH,) * rows if spec.data.variable else ()
            return results.Sampled(data, results.SampleKind.EXACT, lengths, finish_reasons=reasons)
        case Operation.LIKELIHOOD:
            return results.Scored(
                -numbers - 1.0,
                np.full(rows, 64),
                results.LikelihoodKind.EXACT,
                "model",
                results.BaseMeasure.COUNTING,
                terms={"prior": -numbers, "decoder": numbers * 0 - 1.0},
                dequantization="uniform",
            )
        case Operation.INPAINT:
            return results.Completed(_completed(request, data), results.CompletionKind.APPROXIMATE)
        case Operation.SCORE_ANOMALY:
            return results.Anomalies(numbers, numbers + 0.5, 9, "c" * 64)
        case Operation.ENCODE:
            return results.Encoded(latents, numbers)
        case Operation.DECODE:
            return results.Decoded(data)
        case Operation.RECONSTRUCT:
            assert request.data is not None
            return results.Reconstructed(request.data, numbers)
        case Operation.INTERPOLATE:
            points = request.parameters["points"]
            assert isinstance(points, int)
            return results.Interpolated(np.repeat(data[:, None], points, axis=1), request.method)


def _completed(request: Request, data: Array) -> Array:
    assert request.data is not None
    assert request.observed is not None
    many = np.repeat(data[:, None], request.completions, axis=1)
    return np.where(request.observed[:, None], request.data[:, None], many)
