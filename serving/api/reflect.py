"""Server reflection over raw bytes: what does not parse, or asks for nonsense, is INVALID_ARGUMENT."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable

from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection, reflection_pb2

from serving.api.rpc import Call, Method, Rpc

SERVICE = reflection.SERVICE_NAME


def reflection_handlers(rpc: Rpc, services: Iterable[str]) -> dict[str, Method]:
    """ServerReflectionInfo, answering for the services by name."""
    servicer = reflection.aio.ReflectionServicer((*services, SERVICE))

    def answer(requests: AsyncIterator[Message], call: Call) -> AsyncGenerator[Message, None]:
        answers: AsyncGenerator[Message, None] = servicer.ServerReflectionInfo(requests, None)
        return answers

    kind = reflection_pb2.ServerReflectionRequest
    return {"ServerReflectionInfo": rpc.conversation("reflection", kind, answer)}
