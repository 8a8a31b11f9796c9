"""What every method shares: raw bytes in and out, request id, deadline, status, log line, metrics."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import NoReturn, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from serving.api import status
from serving.api.convert.parse import parsed
from serving.errors import Internal, ServingError, Unavailable, invalid
from serving.telemetry import logs
from serving.telemetry.metrics import REJECTIONS_TOTAL, REQUEST_SECONDS, Metrics

log = logging.getLogger("pxserve.api")

REQUEST_ID_KEY = "x-request-id"
_MAX_REQUEST_ID = 128

# quoted: grpcio's classes are generic in the stubs only
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"

Asked = TypeVar("Asked", bound=Message)
Done = TypeVar("Done")


@dataclass
class Call:
    """One call on its way; ``model`` is filled in once it is known to exist (label values stay bounded)."""

    operation: str
    request_id: str
    started: float
    deadline_s: float = 0.0  # time left when the call came in
    payload_bytes: int = 0
    model: str = ""


class Gate:
    """Counts calls in flight, and refuses new ones once it is closed."""

    def __init__(self) -> None:
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._refusal: ServingError | None = None

    def enter(self) -> None:
        """One more; raises what ``close`` was given."""
        if self._refusal is not None:
            raise self._refusal
        self._count += 1
        self._idle.clear()

    def leave(self) -> None:
        """One less."""
        self._count -= 1
        if not self._count:
            self._idle.set()

    def close(self, refusal: Unavailable) -> None:
        """Refuse calls from now on."""
        self._refusal = refusal

    async def idle(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight; false where that took longer."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


class Rpc:
    """Makes gRPC handlers of coroutines that take a parsed message and a Call."""

    def __init__(self, metrics: Metrics, gate: Gate, default_deadline_s: float, quiet: bool = False) -> None:
        """``quiet`` calls (health) leave no metrics, and log lines at level debug only."""
        self._metrics = metrics
        self._quiet = quiet
        self._gate = gate
        self._default_deadline_s = default_deadline_s

    def unary(
        self, operation: str, kind: type[Asked], answer: Callable[[Asked, Call], Awaitable[Message]]
    ) -> Handler:
        """One message in, one out."""

        async def handle(payload: bytes, context: Context) -> bytes:
            async def work(call: Call) -> bytes:
                call.payload_bytes = len(payload)
                reply = await answer(parsed(payload, kind), call)
                return reply.SerializeToString()

            return await self._watched(operation, context, work)

        return grpc.unary_unary_rpc_method_handler(handle)

    def stream(
        self,
        operation: str,
        kind: type[Asked],
        answer: Callable[[Asked, Call], AsyncGenerator[Message, None]],
    ) -> Handler:
        """One message in, many out; a write waits for the reader, and what is not sent is not made."""

        async def handle(payload: bytes, context: Context) -> None:
            async def work(call: Call) -> None:
                call.payload_bytes = len(payload)
                request = parsed(payload, kind)
                await context.send_initial_metadata(((REQUEST_ID_KEY, call.request_id),))
                async with aclosing(answer(request, call)) as events:
                    async for event in events:
                        await context.write(event.SerializeToString())

            await self._watched(operation, context, work)

        return grpc.unary_stream_rpc_method_handler(handle)

    def conversation(
        self,
        operation: str,
        kind: type[Asked],
        answer: Callable[[AsyncIterator[Asked], Call], AsyncIterator[Message]],
    ) -> Handler:
        """Many messages in, many out."""

        async def handle(payloads: AsyncIterator[bytes], context: Context) -> None:
            async def work(call: Call) -> None:
                requests = (parsed(payload, kind) async for payload in payloads)
                async for reply in answer(requests, call):
                    await context.write(reply.SerializeToString())

            await self._watched(operation, context, work)

        return grpc.stream_stream_rpc_method_handler(handle)

    async def _watched(
        self, operation: str, context: Context, work: Callable[[Call], Awaitable[Done]]
    ) -> Done:
        call = Call(operation, request_id=secrets.token_hex(8), started=time.perf_counter())
        failure: ServingError
        entered = False
        try:
            call.request_id = _request_id(context) or call.request_id
            logs.request_id.set(call.request_id)
            call.deadline_s = self._deadline_s(context)
            self._gate.enter()
            entered = True
            done = await work(call)
            context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
            self._record(call, grpc.StatusCode.OK)
            return done
        except ServingError as error:
            failure = error
        except asyncio.CancelledError:
            left_s = context.time_remaining()
            expired = left_s is not None and left_s <= 0
            self._record(call, grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED)
            raise
        except Exception as error:  # whatever a bug raises must not reach the client as UNKNOWN
            failure = Internal("an unexpected error; the log has its error id")
            log.exception(
                "unexpected error", extra={"error_id": failure.metadata["error_id"]}, exc_info=error
            )
        finally:
            if entered:
                self._gate.leave()
        return await self._refuse(call, context, failure)

    async def _refuse(self, call: Call, context: Context, failure: ServingError) -> NoReturn:
        self._metrics.counter(REJECTIONS_TOTAL, failure.reason).inc()
        self._record(call, status.code_of(failure), failure)
        trailers = (*status.trailers_of(failure), (REQUEST_ID_KEY, call.request_id))
        await context.abort(status.code_of(failure), status.message_of(failure), trailers)

    def _record(self, call: Call, code: grpc.StatusCode, failure: ServingError | None = None) -> None:
        seconds = time.perf_counter() - call.started
        if not self._quiet:
            self._metrics.histogram(REQUEST_SECONDS, call.model, call.operation, code.name).observe(seconds)
        facts = {"model": call.model, "operation": call.operation, "code": code.name}
        if failure is not None:
            facts |= {"reason": failure.reason, "error": failure.message[:200]}
            facts |= {key: value for key, value in failure.metadata.items() if key == "error_id"}
        level = logging.DEBUG if self._quiet else logging.INFO
        log.log(level, "call", extra={**facts, "milliseconds": round(seconds * 1e3, 3)})

    def _deadline_s(self, context: Context) -> float:
        left_s = context.time_remaining()
        return self._default_deadline_s if left_s is None else left_s


def _request_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY:
            text = value if isinstance(value, str) else ""
            if not 0 < len(text) <= _MAX_REQUEST_ID or not text.isprintable():
                raise invalid(REQUEST_ID_KEY, f"metadata: 1 to {_MAX_REQUEST_ID} printable ASCII characters")
            return text
    return ""
