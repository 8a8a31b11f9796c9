"""What every method shares: raw bytes in and out, request id, deadline, status, log line, metrics."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass, field, replace
from typing import NoReturn, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from serving.access.principal import NOBODY, Asker, Scope
from serving.api import status
from serving.api.convert.parse import parsed
from serving.api.door import Door
from serving.errors import Cancelled, DeadlineExceeded, Internal, ServingError, invalid
from serving.telemetry import logs
from serving.telemetry.calls import CallMetrics, Ended, answered
from serving.telemetry.story import Story
from serving.telemetry.tracing import NO_TRACE, NoTracing, Trace, Tracing

log = logging.getLogger("pxserve.api")

REQUEST_ID_KEY = "x-request-id"
_MAX_REQUEST_ID = 128
STRANGER = Asker(NOBODY)

# quoted: grpcio's classes are generic in the stubs only
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
Method: TypeAlias = Callable[[grpc.HandlerCallDetails], Handler]  # made anew for each call, before it is read

Asked = TypeVar("Asked", bound=Message)
Done = TypeVar("Done")


@dataclass
class Call(Story):
    """One call on its way."""

    deadline_s: float = 0.0  # time left when the call came in
    payload_bytes: int = 0
    trace: Trace = NO_TRACE
    asker: Asker = field(default_factory=Asker)
    named: bool = False  # by the metadata

    def rename(self, name: str) -> None:
        """Take the name that the message gives, where the metadata give none and it can be one."""
        if not self.named and _is_name(name):
            self.request_id = name
            logs.request_id.set(name)


class Rpc:
    """Makes gRPC methods of coroutines that take a parsed message and a Call.

    A caller who is not let in is refused before its message is read.
    """

    def __init__(
        self,
        calls: CallMetrics,
        door: Door,
        default_deadline_s: float,
        quiet: bool = False,
        tracing: Tracing | None = None,
    ) -> None:
        """``quiet`` calls (health) leave no latencies, and log lines at level debug only."""
        self._calls = calls
        self._tracing = tracing or NoTracing()
        self._quiet = quiet
        self._door = door
        self._default_deadline_s = default_deadline_s

    def behind(self, scopes: frozenset[Scope]) -> Rpc:
        """The same for methods that want other scopes."""
        other = copy(self)
        other._door = replace(self._door, scopes=scopes)
        return other

    def unary(
        self, operation: str, kind: type[Asked], answer: Callable[[Asked, Call], Awaitable[Message]]
    ) -> Method:
        """One message in, one out."""

        def opened(asker: Asker) -> Handler:
            async def handle(payload: bytes, context: Context) -> bytes:
                async def work(call: Call) -> bytes:
                    call.payload_bytes = len(payload)
                    await self._door.turn(payload)
                    reply = await answer(parsed(payload, kind), call)
                    return reply.SerializeToString()

                return await self._watched(operation, asker, context, work)

            return grpc.unary_unary_rpc_method_handler(handle)

        return self._guarded(operation, opened)

    def stream(
        self,
        operation: str,
        kind: type[Asked],
        answer: Callable[[Asked, Call], AsyncGenerator[Message, None]],
    ) -> Method:
        """One message in, many out; a write waits for the reader, and what is not sent is not made."""

        def opened(asker: Asker) -> Handler:
            async def handle(payload: bytes, context: Context) -> None:
                async def work(call: Call) -> None:
                    call.payload_bytes = len(payload)
                    await self._door.turn(payload)
                    request = parsed(payload, kind)
                    await context.send_initial_metadata(((REQUEST_ID_KEY, call.request_id),))
                    async with aclosing(answer(request, call)) as events:
                        async for event in events:
                            await context.write(event.SerializeToString())

                await self._watched(operation, asker, context, work)

            return grpc.unary_stream_rpc_method_handler(handle)

        return self._guarded(operation, opened)

    def conversation(
        self,
        operation: str,
        kind: type[Asked],
        answer: Callable[[AsyncIterator[Asked], Call], AsyncGenerator[Message, None]],
    ) -> Method:
        """Many messages in, many out."""

        def opened(asker: Asker) -> Handler:
            async def handle(payloads: AsyncIterator[bytes], context: Context) -> None:
                async def work(call: Call) -> None:
                    requests = (parsed(payload, kind) async for payload in payloads)
                    async with aclosing(answer(requests, call)) as replies:
                        async for reply in replies:
                            await context.write(reply.SerializeToString())

                await self._watched(operation, asker, context, work)

            return grpc.stream_stream_rpc_method_handler(handle)

        return self._guarded(operation, opened)

    def refusing(self, operation: str, refusal: Callable[[], ServingError]) -> Method:
        """A method that answers nobody, and reads nothing."""
        return lambda _: self._refusing(operation, refusal())

    def _guarded(self, operation: str, opened: Callable[[Asker], Handler]) -> Method:
        def method(details: grpc.HandlerCallDetails) -> Handler:
            try:
                return opened(self._door.admit(details.invocation_metadata))
            except ServingError as refusal:
                return self._refusing(operation, refusal)

        return method

    def _refusing(self, operation: str, refusal: ServingError) -> Handler:
        """Takes any number of messages, since that kind of handler is not given one before it runs."""

        async def handle(_: AsyncIterator[bytes], context: Context) -> None:
            async def refuse(call: Call) -> None:
                raise refusal

            await self._watched(operation, STRANGER, context, refuse)

        return grpc.stream_stream_rpc_method_handler(handle)

    async def _watched(
        self, operation: str, asker: Asker, context: Context, work: Callable[[Call], Awaitable[Done]]
    ) -> Done:
        call = self._begun(operation, asker, context.invocation_metadata() or ())

        async def named(call: Call) -> Done:
            given = _request_id(context)
            call.request_id, call.named = given or call.request_id, bool(given)
            logs.request_id.set(call.request_id)
            call.deadline_s = self._deadline_s(context)
            return await work(call)

        try:
            done = await self._answered(call, named, context.time_remaining)
        except ServingError as failure:
            await self._refuse(call, context, failure)
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        return done

    async def within(self, outer: Call, operation: str, work: Callable[[Call], Awaitable[Done]]) -> Done:
        """One of the requests that came by a conversation, as if it had come alone; raises ServingError."""
        call = self._begun(operation, outer.asker, ())
        call.deadline_s = self._default_deadline_s
        logs.request_id.set(call.request_id)
        return await self._answered(call, work, lambda: None)

    async def _answered(
        self, call: Call, work: Callable[[Call], Awaitable[Done]], left_s: Callable[[], float | None]
    ) -> Done:
        """The work, counted and logged; whatever goes wrong with it is raised as a ServingError."""
        failure: ServingError
        operation, entered = call.operation, False
        try:
            self._door.gate.enter()
            entered = True
            done = await work(call)
            # Once the answer is on its way: what is told of a call is told while nobody waits for it.
            asyncio.get_running_loop().call_soon(self._record, call, grpc.StatusCode.OK)
            return done
        except ServingError as error:
            failure = error
        except asyncio.CancelledError:
            left = left_s()
            self._left(call, expired=left is not None and left <= 0)
            raise
        except grpc.aio.InternalError as error:  # the caller reset its stream while it was written to
            self._left(call, expired=False)
            raise asyncio.CancelledError from error
        except Exception as error:  # whatever a bug raises must not reach the client as UNKNOWN
            failure = Internal("an unexpected error; the log has its error id")
            log.exception(
                "unexpected error", extra={"error_id": failure.metadata["error_id"]}, exc_info=error
            )
        finally:
            self._calls.leave(operation)
            if entered:
                self._door.gate.leave()
        self._record(call, status.code_of(failure), failure.reason, failure)
        raise failure

    def _begun(self, operation: str, asker: Asker, metadata: Iterable[tuple[str, str | bytes]]) -> Call:
        call = Call(operation, request_id=secrets.token_hex(8), begun_s=time.monotonic(), asker=asker)
        call.trace = self._tracing.begin(operation, metadata)
        logs.trace_id.set(call.trace.trace_id)
        self._calls.begin(operation)
        return call

    async def _refuse(self, call: Call, context: Context, failure: ServingError) -> NoReturn:
        trailers = (*status.trailers_of(failure), (REQUEST_ID_KEY, call.request_id))
        await context.abort(status.code_of(failure), status.message_of(failure), trailers)

    def _left(self, call: Call, expired: bool) -> None:
        """The caller is gone: it cancelled, or its deadline passed before the engine noticed."""
        code = grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED
        self._record(call, code, DeadlineExceeded.reason if expired else Cancelled.reason)

    def _record(
        self, call: Call, code: grpc.StatusCode, reason: str = "", failure: ServingError | None = None
    ) -> None:
        ended_s = time.monotonic()
        seconds = ended_s - call.begun_s
        done = answered(call, ended_s) if code is grpc.StatusCode.OK else None
        told = None if self._quiet else seconds
        trace_id = call.trace.trace_id
        self._calls.add(Ended(call.model, call.operation, code.name, reason, told, trace_id, done))
        number: int = code.value[0]
        call.trace.end(call, code.name, number, reason)
        facts = {"model": call.model, "operation": call.operation, "code": code.name}
        facts |= {"token": call.asker.principal.name} if call.asker.principal.name else {}
        if failure is not None:
            facts |= {"reason": failure.reason, "error": failure.message[:200]}
            facts |= {key: value for key, value in failure.metadata.items() if key == "error_id"}
        level = logging.DEBUG if self._quiet else logging.INFO
        log.log(level, "call", extra={**facts, "milliseconds": round(seconds * 1e3, 3)})

    def _deadline_s(self, context: Context) -> float:
        left_s = context.time_remaining()
        return self._default_deadline_s if left_s is None else left_s


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _MAX_REQUEST_ID and text.isascii() and text.isprintable()


def _request_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY:
            text = value if isinstance(value, str) else ""
            if not _is_name(text):
                raise invalid(REQUEST_ID_KEY, f"metadata: 1 to {_MAX_REQUEST_ID} printable ASCII characters")
            return text
    return ""
