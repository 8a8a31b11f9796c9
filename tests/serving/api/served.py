"""The real server in a thread of its own, and raw calls to it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2

from pxserve.v1 import generative_service_pb2, model_service_pb2
from serving.api.app import App
from serving.config import Config
from serving.telemetry.metrics import Metrics
from tests.serving.api.fake_engine import FakeEngine
from tests.serving.api.fake_models import read_fake

Done = TypeVar("Done")
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Refused:
    """A status that is not OK, taken apart."""

    code: grpc.StatusCode
    message: str
    reason: str
    fields: tuple[str, ...]
    metadata: dict[str, str]
    retry_s: float | None
    trailers: dict[str, str | bytes]


class Served:
    """A running App; ``app`` and ``engine`` may be touched, on the loop by ``do``."""

    def __init__(self, models: Path, **settings: Any) -> None:
        self.engine = FakeEngine()
        self.metrics = Metrics()
        self.loop = asyncio.new_event_loop()
        self.config = replace(
            Config(models=str(models), listen="127.0.0.1:0", metrics="", drain_s=2.0), **settings
        )
        self.running: Future[int] | None = None
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._open()
        self.do(self.app.start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def begin_only(self, run: bool = False) -> None:
        """Start (or run to the end) without waiting for the models."""
        self._open()
        self.running = self.begin(self.app.run()) if run else None
        if not run:
            self.begin(self.app.start())

    def end(self, shut_down: bool = True) -> None:
        """Shut down, and end the loop."""
        self.channel.close()
        if shut_down:
            self.do(self.app.shut_down())
        self.abandon()

    def abandon(self) -> None:
        """End the loop of a server that never started, or has ended."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _open(self) -> None:
        self._thread.start()
        self.app = self.do(self._made())
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.app.port}")

    async def _made(self) -> App:
        return App(self.config, self.engine, self.metrics, read_fake)

    def begin(self, work: Coroutine[Any, Any, Done]) -> Future[Done]:
        """Run on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def do(self, work: Coroutine[Any, Any, Done]) -> Done:
        """Run on the server's loop and wait."""
        return self.begin(work).result(20.0)

    def raw(self, path: str, payload: bytes, metadata: Metadata = (), timeout_s: float = 10.0) -> bytes:
        """A unary call of bytes, and what the server notes of it afterwards; raises grpc.RpcError."""
        call: Any = self.channel.unary_unary(path)
        reply: bytes = call(payload, metadata=metadata, timeout=timeout_s)
        self.do(asyncio.sleep(0.0))
        return reply

    def call(self, method: str, request: Message, metadata: Metadata = (), timeout_s: float = 10.0) -> Any:
        """The response message of a unary method."""
        service, reply = _described(method)
        answer = reply()
        payload = request.SerializeToString()
        answer.ParseFromString(self.raw(f"/{service}/{method}", payload, metadata, timeout_s))
        return answer

    def future(self, method: str, request: Message) -> Any:
        """A unary call under way: cancel it, or take its bytes."""
        call: Any = self.channel.unary_unary(f"/{_described(method)[0]}/{method}")
        return call.future(request.SerializeToString())

    def stream(self, method: str, request: Message, metadata: Metadata = (), timeout_s: float = 10.0) -> Any:
        """The grpc call of a streaming method; iterate it for messages."""
        service, reply = _described(method)
        call: Any = self.channel.unary_stream(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        return call(request, metadata=metadata, timeout=timeout_s)

    def refused(self, method: str, request: Message, metadata: Metadata = ()) -> Refused:
        """How a unary method refuses a request."""
        with pytest.raises(grpc.RpcError) as caught:
            self.call(method, request, metadata)
        return refusal_of(caught.value)


def refusal_of(error: Any) -> Refused:
    """Take a grpc.RpcError apart."""
    trailers = dict(error.trailing_metadata() or ())
    info, fields, retry_s = error_details_pb2.ErrorInfo(), (), None
    status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    for detail in status.details:
        bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad):
            fields = tuple(violation.field for violation in bad.field_violations)
        elif detail.Unpack(retry):
            retry_s = retry.retry_delay.ToMilliseconds() / 1000
        else:
            detail.Unpack(info)
    return Refused(error.code(), error.details(), info.reason, fields, dict(info.metadata), retry_s, trailers)


def _described(method: str) -> tuple[str, type[Message]]:
    for service in (
        generative_service_pb2.DESCRIPTOR.services_by_name["GenerativeService"],
        model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
        health_pb2.DESCRIPTOR.services_by_name["Health"],
    ):
        if method in service.methods_by_name:
            output = service.methods_by_name[method].output_type
            return service.full_name, message_factory.GetMessageClass(output)
    raise AssertionError(method)
