"""GenerativeService: prepare, ask the engine, write the answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from google.protobuf.message import Message

from pxserve.v1 import inpaint_pb2, likelihood_pb2, sample_pb2
from serving.api.ask import answer_of, events_of
from serving.api.convert import replies
from serving.api.convert.requests import Question
from serving.api.ports import Engine
from serving.api.prepared import Limits, Prepared, prepare
from serving.api.rpc import Call
from serving.api.streams import heartbeats, inpaint_events, likelihood_events, sample_events
from serving.engine.messages import Event, Quote, Usage
from serving.errors import invalid
from serving.families.request import Operation
from serving.repository.repository import Repository
from serving.telemetry.metrics import ROWS_TOTAL, Metrics

Previewing = sample_pb2.StreamSampleRequest | inpaint_pb2.StreamInpaintRequest
Adapter = Callable[[AsyncIterator[Event], Prepared], AsyncGenerator[Message, None]]


class Generative:
    """Answers every operation: one coroutine for the unary calls, one generator per stream."""

    def __init__(self, repository: Repository, engine: Engine, metrics: Metrics, limits: Limits) -> None:
        self._repository = repository
        self._engine = engine
        self._metrics = metrics
        self._limits = limits

    async def answer(self, question: Question, call: Call) -> Message:
        """The response to any unary request."""
        prepared = await prepare(question, call, self._repository, self._limits, whole_reply=True)
        if _validates_only(question):
            return self._predicted(prepared)
        finished = await answer_of(self._engine, prepared.loaded.key, prepared.request, prepared.options())
        self._answered(prepared)
        return await prepared.reply(finished)

    async def stream_sample(
        self, message: sample_pb2.StreamSampleRequest, call: Call
    ) -> AsyncGenerator[Message, None]:
        """Progress, previews or text, rows, then the summary."""
        every = _preview_steps(message)
        prepared = await prepare(message.request, call, self._repository, self._limits, whole_reply=False)
        if message.request.validate_only:
            predicted = self._predicted(prepared)
            assert isinstance(predicted, sample_pb2.SampleResponse)
            yield sample_pb2.StreamSampleResponse(summary=predicted)
            return
        every = every or int(prepared.writer.is_text)
        async for event in self._streamed(prepared, every, sample_events):
            yield event

    async def stream_inpaint(
        self, message: inpaint_pb2.StreamInpaintRequest, call: Call
    ) -> AsyncGenerator[Message, None]:
        """Progress, previews, completions, then the summary."""
        every = _preview_steps(message)
        prepared = await prepare(message.request, call, self._repository, self._limits, whole_reply=False)
        if message.request.validate_only:
            predicted = self._predicted(prepared)
            assert isinstance(predicted, inpaint_pb2.InpaintResponse)
            yield inpaint_pb2.StreamInpaintResponse(summary=predicted)
            return
        async for event in self._streamed(prepared, every, inpaint_events):
            yield event

    async def stream_likelihood(
        self, message: likelihood_pb2.StreamLikelihoodRequest, call: Call
    ) -> AsyncGenerator[Message, None]:
        """Progress, running estimates, then the result."""
        if not message.HasField("request"):
            raise invalid("request", "is required")
        prepared = await prepare(message.request, call, self._repository, self._limits, whole_reply=False)
        if message.request.validate_only:
            predicted = self._predicted(prepared)
            assert isinstance(predicted, likelihood_pb2.LikelihoodResponse)
            yield likelihood_pb2.StreamLikelihoodResponse(result=predicted)
            return
        async for event in self._streamed(prepared, 0, likelihood_events):
            yield event

    async def _streamed(
        self, prepared: Prepared, preview_every_steps: int, adapter: Adapter
    ) -> AsyncGenerator[Message, None]:
        options = prepared.options(stream=True, preview_every_steps=preview_every_steps)
        async with (
            aclosing(events_of(self._engine, prepared.loaded.key, prepared.request, options)) as events,
            aclosing(heartbeats(events)) as beating,
            aclosing(adapter(beating, prepared)) as messages,
        ):
            async for message in messages:
                yield message
        self._answered(prepared)

    def _answered(self, prepared: Prepared) -> None:
        request = prepared.request
        rows = self._metrics.counter(ROWS_TOTAL, prepared.loaded.key.name, request.operation.value)
        rows.inc(request.rows * request.completions)

    def _predicted(self, prepared: Prepared) -> Message:
        """The reply of ``validate_only``: resolved parameters and the predicted cost, nothing computed."""
        request = prepared.request
        quote = self._engine.quote(prepared.loaded.key, request)
        frame = prepared.frame(None, _usage(quote))
        if request.operation is Operation.SAMPLE:
            parameters = replies.sample_parameters(request.method, request.parameters)
            return sample_pb2.SampleResponse(parameters=parameters, provenance=frame.provenance)
        if request.operation is Operation.INPAINT:
            completing = replies.inpaint_parameters(request.method, request.parameters)
            return inpaint_pb2.InpaintResponse(parameters=completing, provenance=frame.provenance)
        scoring = replies.likelihood_parameters(request.method, request.parameters)
        return likelihood_pb2.LikelihoodResponse(parameters=scoring, provenance=frame.provenance)


def _usage(quote: Quote) -> Usage:
    return Usage(sum(quote.network_rows.values()), quote.seconds_alone, quote.seconds_queued)


def _validates_only(question: Question) -> bool:
    return bool(getattr(question, "validate_only", False))


def _preview_steps(message: Previewing) -> int:
    if not message.HasField("request"):
        raise invalid("request", "is required")
    if message.preview_every_steps < 0:
        raise invalid("preview_every_steps", f"{message.preview_every_steps} is below 0")
    return message.preview_every_steps
