"""GenerativeService: prepare, ask the engine, write the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from google.protobuf.message import Message

from pxserve.v1 import inpaint_pb2, likelihood_pb2, sample_pb2
from serving.api.ask import Asking
from serving.api.convert import replies
from serving.api.convert.requests import Question
from serving.api.ports import Engine
from serving.api.prepared import Limits, Prepared, lease, prepare
from serving.api.rpc import Call
from serving.api.streams import heartbeats, inpaint_events, likelihood_events, sample_events
from serving.engine.messages import Event, Finished, Quote, Usage
from serving.errors import invalid
from serving.families.request import Operation
from serving.repository.repository import Repository
from serving.telemetry.calls import CallMetrics
from serving.telemetry.first_event import FirstEvent

Previewing = sample_pb2.StreamSampleRequest | inpaint_pb2.StreamInpaintRequest
Adapter = Callable[[AsyncIterator[Event], Prepared], AsyncGenerator[Message, None]]


class Generative:
    """Answers every operation: one coroutine for the unary calls, one generator per stream."""

    def __init__(self, repository: Repository, engine: Engine, calls: CallMetrics, limits: Limits) -> None:
        self._repository = repository
        self._engine = engine
        self.asking = Asking(engine)
        self._calls = calls
        self.limits = limits

    async def answer(self, question: Question, call: Call) -> Message:
        """The response to any unary request."""
        with lease(question, self._repository) as loaded:
            prepared = await prepare(question, call, loaded, self.limits, whole_reply=True)
            if _validates_only(question):
                return await self._predicted(prepared)
            finished = await self.ask(prepared)
            return await prepared.reply(finished)

    async def ask(self, prepared: Prepared) -> Finished:
        """The engine's answer to a request that was understood."""
        key, request = prepared.loaded.key, prepared.request
        return await self.asking.answer(key, request, prepared.options(), prepared.call)

    async def stream_sample(
        self, message: sample_pb2.StreamSampleRequest, call: Call
    ) -> AsyncGenerator[Message, None]:
        """Progress, previews or text, rows, then the summary."""
        every = _preview_steps(message)
        with lease(message.request, self._repository) as loaded:
            prepared = await prepare(message.request, call, loaded, self.limits, whole_reply=False)
            if message.request.validate_only:
                predicted = await self._predicted(prepared)
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
        with lease(message.request, self._repository) as loaded:
            prepared = await prepare(message.request, call, loaded, self.limits, whole_reply=False)
            if message.request.validate_only:
                predicted = await self._predicted(prepared)
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
        with lease(message.request, self._repository) as loaded:
            prepared = await prepare(message.request, call, loaded, self.limits, whole_reply=False)
            if message.request.validate_only:
                predicted = await self._predicted(prepared)
                assert isinstance(predicted, likelihood_pb2.LikelihoodResponse)
                yield likelihood_pb2.StreamLikelihoodResponse(result=predicted)
                return
            async for event in self._streamed(prepared, 0, likelihood_events):
                yield event

    async def _streamed(
        self, prepared: Prepared, preview_every_steps: int, adapter: Adapter
    ) -> AsyncGenerator[Message, None]:
        options = prepared.options(stream=True, preview_every_steps=preview_every_steps)
        key, request, call = prepared.loaded.key, prepared.request, prepared.call
        first = FirstEvent(self._calls, call)
        async with (
            aclosing(self.asking.events(key, request, options, call)) as events,
            aclosing(heartbeats(events)) as beating,
            aclosing(adapter(beating, prepared)) as messages,
        ):
            async for message in messages:
                first.sent(message)
                yield message

    async def predicted_frame(self, prepared: Prepared) -> replies.Frame:
        """The frame of a reply with the predicted cost."""
        quote = await asyncio.to_thread(self._engine.quote, prepared.loaded.key, prepared.request)
        return prepared.frame(None, _usage(quote))

    async def _predicted(self, prepared: Prepared) -> Message:
        """The reply of ``validate_only``: resolved parameters and the predicted cost, nothing computed."""
        request = prepared.request
        frame = await self.predicted_frame(prepared)
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
