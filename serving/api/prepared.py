"""From a message to a request that the engine takes, and the frame of its reply."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from google.protobuf.message import Message

from pxserve.v1 import data_pb2
from serving.api.convert import replies
from serving.api.convert.provenance import provenance_of
from serving.api.convert.requests import Question, asked_of
from serving.api.convert.rows import Writer
from serving.api.resolve.request import Rules, resolve
from serving.api.rpc import Call
from serving.engine.messages import Finished, Options, Usage
from serving.errors import invalid
from serving.families.request import Request
from serving.families.result import Result
from serving.repository.loader import LoadedModel
from serving.repository.repository import Repository

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
        return Options(
            request_id=self.call.request_id,
            deadline_s=self.call.deadline_s - (time.perf_counter() - self.call.started),
            stream=stream,
            preview_every_steps=preview_every_steps,
        )


async def prepare(
    question: Question, call: Call, repository: Repository, limits: Limits, *, whole_reply: bool
) -> Prepared:
    """Find the model and resolve the request; raises the ServingError that says what is wrong.

    ``whole_reply``: the answer is one message, so its size is limited. Large requests are read in a
    thread, so that the event loop goes on.
    """
    loaded = find(question.model, question.version if question.HasField("version") else None, repository)
    call.model = loaded.key.name
    reply_bytes = limits.max_message_bytes if whole_reply else 0
    rules = Rules(loaded.spec, loaded.capabilities, loaded.latent, limits.rows_of(loaded), reply_bytes)
    if call.payload_bytes <= INLINE_BYTES:
        return _understood(question, call, loaded, rules)
    return await asyncio.to_thread(_understood, question, call, loaded, rules)


def _understood(question: Question, call: Call, loaded: LoadedModel, rules: Rules) -> Prepared:
    request = resolve(asked_of(question, rules), rules)
    encoding = getattr(question, "encoding", data_pb2.ENCODING_UNSPECIFIED)
    return Prepared(loaded, request, Writer.of(loaded.spec, encoding), call)


def find(model: str, version: int | None, repository: Repository) -> LoadedModel:
    """The loaded model that a request names."""
    if not model:
        raise invalid("model", "is required")
    return repository.ready(model, version)
