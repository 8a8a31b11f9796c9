"""grpc.health.v1 from the caller's side: one question, one status, no further package."""

from __future__ import annotations

import enum
from typing import Any, cast

import grpc

from pxserve.channel import OPTIONS, Endpoint
from pxserve.errors import FailedCall, from_call

CHECK = "/grpc.health.v1.Health/Check"
TIMEOUT_S = 5.0


class ServingStatus(enum.IntEnum):
    """``HealthCheckResponse.ServingStatus``."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


def check(endpoint: Endpoint, service: str = "") -> ServingStatus:
    """Status of ``""`` (accepts work), ``liveness``, ``model/NAME`` or a service's full name.

    Raises PxserveError: NOT_FOUND for a name that nobody has, UNAVAILABLE where nobody answers.
    """
    credentials = endpoint.credentials
    options: list[tuple[str, Any]] = [*OPTIONS, ("grpc.enable_retries", 0)]
    channel = (
        grpc.insecure_channel(endpoint.target, options)
        if credentials is None
        else grpc.secure_channel(endpoint.target, credentials, options)
    )
    with channel:
        ask = channel.unary_unary(CHECK, request_serializer=_request, response_deserializer=_status)
        try:
            return ask(service, timeout=endpoint.timeout_s or TIMEOUT_S)
        except grpc.RpcError as error:
            raise from_call(cast(FailedCall, error)) from error


def _request(service: str) -> bytes:
    """``HealthCheckRequest {string service = 1}``."""
    name = service.encode()
    if len(name) > 127:
        raise ValueError("a service's name has at most 127 bytes")
    return bytes([0x0A, len(name)]) + name if name else b""


def _status(reply: bytes) -> ServingStatus:
    """``HealthCheckResponse {ServingStatus status = 1}``; fields of later versions are passed over."""
    return ServingStatus(reply[1]) if reply[:1] == b"\x08" else ServingStatus.UNKNOWN
