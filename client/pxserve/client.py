"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, Self, TypeVar, cast

import grpc

from pxserve import administration, operations, streams
from pxserve.channel import OPTIONS, Clock, Endpoint, Replies, Tls, pause_s
from pxserve.methods import stream, unary
from pxserve.script import Call, Script, Stream

R = TypeVar("R")


class Client:
    """Asks one server; NumPy in and out, PxserveError where it says no. Threads may share it.

    ``target`` is HOST:PORT. Connects on the first call; close it, or use it as a context manager.
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
        credentials = self._endpoint.credentials
        self._channel = (
            grpc.insecure_channel(target, OPTIONS)
            if credentials is None
            else grpc.secure_channel(target, credentials, OPTIONS)
        )

    sample = unary(operations.sample)
    likelihood = unary(operations.likelihood)
    inpaint = unary(operations.inpaint)
    score_anomaly = unary(operations.score_anomaly)
    encode = unary(operations.encode)
    decode = unary(operations.decode)
    reconstruct = unary(operations.reconstruct)
    interpolate = unary(operations.interpolate)
    stream_sample = stream(streams.stream_sample)
    stream_inpaint = stream(streams.stream_inpaint)
    stream_likelihood = stream(streams.stream_likelihood)
    list_models = unary(administration.list_models)
    get_model = unary(administration.get_model)
    load_model = unary(administration.load_model)
    unload_model = unary(administration.unload_model)
    self_test = unary(administration.self_test)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what runs and disconnect."""
        self._channel.close()

    def _run_script(self, script: Script[R]) -> R:
        return self._run(script)[0]

    def _open_stream(self, script: Script[Stream[R]]) -> Generator[R, None, None]:
        plan, clock = self._run(script)
        clock = clock or self._endpoint.clock(plan.delivery)
        method = self._channel.unary_stream(plan.rpc.path, _serialize, plan.rpc.parse)
        metadata = self._endpoint.metadata(plan.delivery)
        while True:
            call, delivered = method(plan.request, timeout=clock.left_s(), metadata=metadata), False
            try:
                for reply in call:
                    delivered, event = True, plan.event(reply)
                    if event is not None:
                        yield event
                return
            except grpc.RpcError as error:
                wait_s = pause_s(error, clock, self._replies, delivered)
            finally:
                call.cancel()
            time.sleep(wait_s)

    def _run(self, script: Script[R]) -> tuple[R, Clock | None]:
        clock, reply = None, None
        try:
            while True:
                call = script.send(reply)
                clock = clock or self._endpoint.clock(call.delivery)
                reply = self._replies.get(call) or self._ask(call, clock)
        except StopIteration as answered:
            return cast(R, answered.value), clock

    def _ask(self, call: Call[Any], clock: Clock) -> Any:
        method = self._channel.unary_unary(call.rpc.path, _serialize, call.rpc.parse)
        metadata = self._endpoint.metadata(call.delivery)
        while True:
            try:
                reply = method(call.request, timeout=clock.left_s(), metadata=metadata)
            except grpc.RpcError as error:
                time.sleep(pause_s(error, clock, self._replies))
            else:
                self._replies.put(call, reply)
                return reply


def _serialize(message: Any) -> bytes:
    return cast(bytes, message.SerializeToString())
