"""The asynchronous client: the same methods as coroutines, the streams as asynchronous iterators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Self, TypeVar, cast

import grpc

from pxserve import administration, operations, streams
from pxserve.channel import OPTIONS, Clock, Endpoint, Replies, Tls, pause_s
from pxserve.methods import stream_async, unary_async
from pxserve.script import Call, Script, Stream

R = TypeVar("R")


class AsyncClient:
    """Asks one server; the methods of ``Client`` as coroutines. Cancelling a task cancels its call.

    It belongs to the event loop of its first call. Close it, or use it as an asynchronous context manager.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: Tls = None,
        token: str | None = None,
        timeout_s: float | None = None,
        allow_plaintext_token: bool = False,
    ) -> None:
        self._endpoint = Endpoint(target, tls, token, timeout_s, allow_plaintext_token)
        self._replies = Replies()
        self._opened: grpc.aio.Channel | None = None
        self._streaming: set[Any] = set()  # calls

    sample = unary_async(operations.sample)
    likelihood = unary_async(operations.likelihood)
    inpaint = unary_async(operations.inpaint)
    score_anomaly = unary_async(operations.score_anomaly)
    encode = unary_async(operations.encode)
    decode = unary_async(operations.decode)
    reconstruct = unary_async(operations.reconstruct)
    interpolate = unary_async(operations.interpolate)
    stream_sample = stream_async(streams.stream_sample)
    stream_inpaint = stream_async(streams.stream_inpaint)
    stream_likelihood = stream_async(streams.stream_likelihood)
    list_models = unary_async(administration.list_models)
    get_model = unary_async(administration.get_model)
    load_model = unary_async(administration.load_model)
    unload_model = unary_async(administration.unload_model)
    self_test = unary_async(administration.self_test)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what runs and disconnect."""
        for call in list(self._streaming):  # closing a channel does not reach them
            call.cancel()
        if self._opened is not None:
            await self._opened.close()

    async def _run_script(self, script: Script[R]) -> R:
        return (await self._run(script))[0]

    async def _open_stream(self, script: Script[Stream[R]]) -> AsyncGenerator[R, None]:
        plan, clock = await self._run(script)
        clock = clock or self._endpoint.clock(plan.delivery)
        method = self._channel.unary_stream(plan.rpc.path, _serialize, plan.rpc.parse)
        metadata = self._endpoint.metadata(plan.delivery)
        while True:
            call, delivered = method(plan.request, timeout=clock.left_s(), metadata=metadata), False
            self._streaming.add(call)
            try:
                async for reply in call:
                    delivered, event = True, plan.event(reply)
                    if event is not None:
                        yield event
                return
            except grpc.RpcError as error:
                wait_s = pause_s(error, clock, self._replies, delivered)
            finally:
                call.cancel()
                self._streaming.discard(call)
            await asyncio.sleep(wait_s)

    @property
    def _channel(self) -> grpc.aio.Channel:
        if self._opened is None:  # not in the constructor, which may run outside of the event loop
            target, credentials = self._endpoint.target, self._endpoint.credentials
            self._opened = (
                grpc.aio.insecure_channel(target, OPTIONS)
                if credentials is None
                else grpc.aio.secure_channel(target, credentials, OPTIONS)
            )
        return self._opened

    async def _run(self, script: Script[R]) -> tuple[R, Clock | None]:
        clock, reply = None, None
        try:
            while True:
                call = script.send(reply)
                clock = clock or self._endpoint.clock(call.delivery)
                reply = self._replies.get(call) or await self._ask(call, clock)
        except StopIteration as answered:
            return cast(R, answered.value), clock

    async def _ask(self, call: Call[Any], clock: Clock) -> Any:
        method = self._channel.unary_unary(call.rpc.path, _serialize, call.rpc.parse)
        metadata = self._endpoint.metadata(call.delivery)
        while True:
            try:
                reply = await method(call.request, timeout=clock.left_s(), metadata=metadata)
            except grpc.RpcError as error:
                await asyncio.sleep(pause_s(error, clock, self._replies))
            else:
                self._replies.put(call, reply)
                return reply


def _serialize(message: Any) -> bytes:
    return cast(bytes, message.SerializeToString())
