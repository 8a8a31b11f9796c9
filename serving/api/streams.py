"""Events of the engine to events of the three streams; every row goes out once, the summary last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from pxserve.v1 import inpaint_pb2, likelihood_pb2, sample_pb2, stream_pb2
from serving.api.convert import replies
from serving.api.convert.texts import ByteCodec, Growing
from serving.api.prepared import Prepared
from serving.engine.messages import Advanced, Event, Finished, Previewed, RowFinal, Usage
from serving.families.request import Array
from serving.families.result import Completed, Sampled, Scored

SILENCE_S = 8.0  # the promise is an event every 10 s, even while one network run takes longer

_INT32 = 2**31 - 1
_SO_FAR = Usage(0, 0.0, 0.0)


async def heartbeats(
    events: AsyncIterator[Event], silence_s: float = SILENCE_S
) -> AsyncGenerator[Event, None]:
    """The events; after ``silence_s`` without one, the last progress again."""
    last = Advanced(0, 0, 0.0, queued=True)
    waiting: asyncio.Future[Event | None] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(_next(events))
            done, _ = await asyncio.wait({waiting}, timeout=silence_s)
            if not done:
                yield last
                continue
            event, waiting = waiting.result(), None
            if event is None:
                return
            if isinstance(event, Advanced):
                last = Advanced(
                    event.steps_done, event.steps_total, event.predicted_seconds_left, event.queued
                )
            yield event
    finally:
        if waiting is not None:
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting


async def _next(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)


async def sample_events(
    events: AsyncIterator[Event], prepared: Prepared
) -> AsyncGenerator[sample_pb2.StreamSampleResponse, None]:
    """Progress, previews (or text), rows, and the summary without data."""
    rows = _Rows(prepared)
    texts = _Texts(prepared) if prepared.writer.is_text else None
    async for event in events:
        if isinstance(event, Advanced):
            yield sample_pb2.StreamSampleResponse(progress=_progress(event))
        elif isinstance(event, Previewed) and texts is not None:
            yield sample_pb2.StreamSampleResponse(text=texts.grown(event.row, event.data, event.length))
        elif isinstance(event, Previewed):
            yield sample_pb2.StreamSampleResponse(preview=_preview(event, prepared))
        else:
            for row in rows.final(event):
                if texts is not None:
                    delta = texts.grown(row.row, row.data, row.length, final=True)
                    yield sample_pb2.StreamSampleResponse(text=delta)
                yield sample_pb2.StreamSampleResponse(row=_row(row, prepared))
        if isinstance(event, Finished) and isinstance(event.result, Sampled):
            frame = prepared.frame(event.result, event.usage, with_data=False)
            yield sample_pb2.StreamSampleResponse(summary=replies.sampled(event.result, frame))


async def inpaint_events(
    events: AsyncIterator[Event], prepared: Prepared
) -> AsyncGenerator[inpaint_pb2.StreamInpaintResponse, None]:
    """Progress, previews, completions, and the summary without data."""
    rows = _Rows(prepared)
    async for event in events:
        if isinstance(event, Advanced):
            yield inpaint_pb2.StreamInpaintResponse(progress=_progress(event))
        elif isinstance(event, Previewed):
            yield inpaint_pb2.StreamInpaintResponse(preview=_preview(event, prepared))
        else:
            for row in rows.final(event):
                yield inpaint_pb2.StreamInpaintResponse(row=_row(row, prepared))
        if isinstance(event, Finished) and isinstance(event.result, Completed):
            frame = prepared.frame(event.result, event.usage, with_data=False)
            yield inpaint_pb2.StreamInpaintResponse(summary=replies.completed(event.result, frame))


async def likelihood_events(
    events: AsyncIterator[Event], prepared: Prepared
) -> AsyncGenerator[likelihood_pb2.StreamLikelihoodResponse, None]:
    """Progress, running estimates, and the result."""
    async for event in events:
        if isinstance(event, Advanced):
            yield likelihood_pb2.StreamLikelihoodResponse(progress=_progress(event))
            if isinstance(event.partial, Scored):
                estimate = replies.scored(event.partial, prepared.frame(event.partial, _SO_FAR))
                yield likelihood_pb2.StreamLikelihoodResponse(estimate=estimate)
        elif isinstance(event, Finished) and isinstance(event.result, Scored):
            result = replies.scored(event.result, prepared.frame(event.result, event.usage))
            yield likelihood_pb2.StreamLikelihoodResponse(result=result)


class _Rows:
    """Rows that are final, each once: as they come, and at the end those that never came alone."""

    def __init__(self, prepared: Prepared) -> None:
        self._axes = len(prepared.loaded.spec.data.shape)
        self._sent: set[int] = set()

    def final(self, event: Event) -> Iterator[RowFinal]:
        """What this event makes final."""
        if isinstance(event, RowFinal):
            yield from self._once(event)
        elif isinstance(event, Finished) and isinstance(event.result, Sampled | Completed):
            data = event.result.data
            flat = data.reshape(-1, *data.shape[data.ndim - self._axes :])
            lengths = None if event.result.lengths is None else np.ravel(event.result.lengths)
            for index, row in enumerate(flat):
                length = None if lengths is None else int(lengths[index])
                yield from self._once(RowFinal(index, row, length))

    def _once(self, row: RowFinal) -> Iterator[RowFinal]:
        if row.row not in self._sent:
            self._sent.add(row.row)
            yield row


class _Texts:
    """Text of each growing row, beginning after its prompt."""

    def __init__(self, prepared: Prepared) -> None:
        self._prompts = prepared.request.lengths
        self._codec = prepared.writer.codec or ByteCodec()
        self._streams: dict[int, Growing] = {}

    def grown(
        self, row: int, data: Array, length: int | None, *, final: bool = False
    ) -> stream_pb2.TextDelta:
        """What the row has more than when it was last seen."""
        if row not in self._streams:
            start = 0 if self._prompts is None else int(self._prompts[row])
            self._streams[row] = self._codec.growing(start)
        end = len(data) if length is None else length
        text, tokens = self._streams[row].grown(data, end, final)
        return stream_pb2.TextDelta(row=row, text=text, tokens=tokens)


def _progress(event: Advanced) -> stream_pb2.Progress:
    return stream_pb2.Progress(
        steps_done=min(event.steps_done, _INT32),
        steps_total=min(event.steps_total, _INT32),
        predicted_seconds_left=event.predicted_seconds_left,
        queued=event.queued,
    )


def _preview(event: Previewed, prepared: Prepared) -> stream_pb2.Preview:
    data = prepared.writer.data(event.data[None], _lengths(event.length))
    return stream_pb2.Preview(row=event.row, data=data, step=min(event.step, _INT32))


def _row(event: RowFinal, prepared: Prepared) -> stream_pb2.SampleRow:
    return stream_pb2.SampleRow(
        row=event.row, data=prepared.writer.data(event.data[None], _lengths(event.length))
    )


def _lengths(length: int | None) -> NDArray[np.int32] | None:
    return None if length is None else np.array([length], np.int32)
