"""What the server said when it said no."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

STATUS_DETAILS = "grpc-status-details-bin"
REQUEST_ID = "x-request-id"
Metadata = Iterable[tuple[str, str | bytes]]
M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class FieldViolation:
    """One wrong field of the request: its path, and what to do about it."""

    field: str
    description: str


class PxserveError(Exception):
    """A call that was not answered.

    ``code`` is the gRPC status; ``reason`` one word of the server's documented list (the code's name where
    the server gave none); ``retry_after_s`` is set only where the server said when to come back;
    ``metadata`` are the reason's details, such as an ``error_id`` that the server's log has too.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        field_violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> None:
        self.code = code
        self.message = message
        self.reason = reason or code.name
        self.field_violations = tuple(field_violations)
        self.retry_after_s = retry_after_s
        self.metadata = dict(metadata or {})
        self.request_id = request_id
        super().__init__(str(self))

    def __str__(self) -> str:
        """Status, reason and message on one line, then one per wrong field that the message leaves out."""
        status = self.code.name if self.reason == self.code.name else f"{self.code.name} ({self.reason})"
        fields = [f"{v.field}: {v.description}" for v in self.field_violations]
        more = "".join(f"\n  {field}" for field in fields if field not in self.message)
        return f"{status}: {self.message}{more}"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickles by state, since the constructor takes keywords."""
        return (PxserveError, (self.code, self.message), self.__dict__)


def refuse(field: str, description: str, cause: Exception | None = None) -> NoReturn:
    """Raise what the server would answer to a wrong field that need not be sent to find out."""
    raise PxserveError(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"{field}: {description}",
        field_violations=[FieldViolation(field, description)],
    ) from cause


class FailedCall(Protocol):
    """What gRPC raises, synchronous or not."""

    def code(self) -> grpc.StatusCode:
        """Status."""

    def details(self) -> str | None:
        """Message."""

    def trailing_metadata(self) -> Metadata | None:
        """Metadata after the last message."""


def from_call(call: FailedCall) -> PxserveError:
    """The typed error of a failed call; details that do not parse are left out."""
    trailing = dict(iter(call.trailing_metadata() or ()))
    status = _status(trailing.get(STATUS_DETAILS))
    info, bad, retry = (
        _unpack(status, error_details_pb2.ErrorInfo()),
        _unpack(status, error_details_pb2.BadRequest()),
        _unpack(status, error_details_pb2.RetryInfo()),
    )
    violations = bad.field_violations if bad else ()
    return PxserveError(
        call.code(),
        status.message or call.details() or "",
        reason=info.reason if info else "",
        field_violations=[FieldViolation(v.field, v.description) for v in violations],
        retry_after_s=retry.retry_delay.ToTimedelta().total_seconds() if retry else None,
        metadata=dict(info.metadata) if info else None,
        request_id=str(trailing.get(REQUEST_ID, "")),
    )


def _status(details: str | bytes | None) -> status_pb2.Status:
    try:
        return status_pb2.Status.FromString(details if isinstance(details, bytes) else b"")
    except DecodeError:
        return status_pb2.Status()


def _unpack(status: status_pb2.Status, into: M) -> M | None:
    found = (detail for detail in status.details if detail.Is(into.DESCRIPTOR))
    return next((into for detail in found if detail.Unpack(into)), None)
