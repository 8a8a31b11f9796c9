"""From a message to a request that the engine takes, and the frame of its reply."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from google.protobuf.message import Message

from pxserve.v1 import data_pb2, model_service_pb2
from serving.api.convert import replies
from serving.api.convert.provenance import provenance_of
from serving.api.convert.requests import Question, asked_of
from serving.api.convert.rows import Writer
from serving.api.convert.texts import codec_of
from serving.api.resolve.asked import Asked
from serving.api.resolve.request import Rules, resolve
from serving.api.rpc import Call
from serving.engine.messages import Finished, Options, Usage
from serving.errors import invalid
from serving.families.request import Request
from serving.families.result import Result
from serving.repository.loader import LoadedModel
from serving.repository.repository import Repository

Named = Question | model_service_pb2.SelfTestRequest

INLINE_BYTES = 1 << 17  # of a request that is read on the event loop
INLINE_ELEMENTS = 1 << 14  # of a reply that is written there


@dataclass(frozen=True)
class Limits:
    """What one request may take on this server."""

    max_rows: int
    max_message_bytes: int

    def rows_of(self, loaded: LoadedModel) -> int:
        """Rows that one request may have of this model."""
        return min(self.max_rows, loaded.max_rows_per_request)


@dataclass(frozen=True)
class Prepared:
    """A request that was understood: what to run, and how to write the answer."""

    loaded: LoadedModel
    request: Request
    writer: Writer
    call: Call

    def frame(self, result: Result | None, usage: Usage, with_data: bool = True) -> replies.Frame:
        """The frame of its reply."""
        values = replies.resolved(result, self.request)
        provenance = provenance_of(self.loaded, self.request, values, usage, self.call.request_id)
        return replies.Frame(self.request, self.writer, provenance, with_data)

    async def reply(self, finished: Finished) -> Message:
        """The response message; large ones are written in a thread."""
        frame = self.frame(finished.result, finished.usage)
        elements = self.request.rows * self.request.completions * self.loaded.spec.data.elements
        if elements <= INLINE_ELEMENTS:
            return replies.reply_of(finished.result, frame)
        return await asyncio.to_thread(replies.reply_of, finished.result, frame)

    def options(self, stream: bool = False, preview_every_steps: int = 0) -> Options:
        """How to run it; the deadline counts from when the call came in."""
        return self.call.asker.options(
            request_id=self.call.request_id,
            deadline_s=self.call.deadline_s - (time.monotonic() - self.call.begun_s),
            stream=stream,
            preview_every_steps=preview_every_steps,
            traced=self.call.trace.recording,
        )


async def prepare(
    question: Question, call: Call, loaded: LoadedModel, limits: Limits, *, whole_reply: bool
) -> Prepared:
    """Resolve a request of the typed API; raises the ServingError that says what is wrong with it."""
    encoding = getattr(question, "encoding", data_pb2.ENCODING_UNSPECIFIED)
    read = partial(asked_of, question)
    return await understand(read, encoding, call, loaded, limits, whole_reply=whole_reply)


async def understand(
    read: Callable[[Rules], Asked],
    encoding: data_pb2.Encoding.ValueType,
    call: Call,
    loaded: LoadedModel,
    limits: Limits,
    *,
    whole_reply: bool,
) -> Prepared:
    """Resolve what ``read`` finds in a message, whichever API it came by.

    ``whole_reply``: the answer is one message, so its size is limited. Large requests are read in a
    thread, so that the event loop goes on.
    """
    call.model = loaded.key.name
    reply_bytes = limits.max_message_bytes if whole_reply else 0
    codec = codec_of(loaded.spec, getattr(loaded, "folder", None))
    limit = (limits.rows_of(loaded), reply_bytes)
    rules = Rules(loaded.spec, loaded.capabilities, loaded.latent, *limit, codec)

    def understood() -> Prepared:
        request = resolve(read(rules), rules)
        return Prepared(loaded, request, Writer.of(loaded.spec, encoding, rules.codec), call)

    if call.payload_bytes <= INLINE_BYTES:
        return understood()
    return await asyncio.to_thread(understood)


@contextmanager
def lease(question: Named, repository: Repository) -> Iterator[LoadedModel]:
    """The loaded model that a message names, kept until the block ends; raises where it does not answer."""
    if not question.model:
        raise invalid("model", "is required")
    version = question.version if question.HasField("version") else None
    with repository.lease(question.model, version) as loaded:
        yield loaded
