"""Errors with one neutral code each.

ServingError
├── InvalidArgument     the request is wrong; names its fields
├── NotFound            no such model or version
├── FailedPrecondition  the model cannot, or not yet (OPERATION_UNDEFINED, NOT_READY, NOT_CALIBRATED)
├── ResourceExhausted   QUEUE_FULL or QUOTA; says when to come back
├── DeadlineExceeded    DEADLINE_INFEASIBLE at admission, or DEADLINE_MISSED
├── Unavailable         DRAINING or DEVICE_LOST
├── Unauthenticated     no bearer token, or one that is not known
├── PermissionDenied    a token without the scope, or below the priority, that the call asks for
├── Unimplemented       an administrator's call at an address that does not take it
├── Cancelled           the client left
└── Internal            ours; carries an error id that the log has too
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


class Code(enum.Enum):
    """Status codes, with gRPC's numbers."""

    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True)
class FieldViolation:
    """One wrong field: its path in the request, and what to do about it."""

    field: str
    description: str


class ServingError(Exception):
    """Base; ``reason`` is one of the documented list in docs/errors.md."""

    code = Code.INTERNAL
    reason = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        violations: Sequence[FieldViolation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Callable[..., ServingError], tuple[object, ...]]:
        """Errors cross process borders whole."""
        return _rebuilt, (type(self), self.message, self.__dict__)


def _rebuilt(kind: type[ServingError], message: str, state: dict[str, object]) -> ServingError:
    error = kind.__new__(kind, message)
    error.__dict__.update(state)
    return error


class InvalidArgument(ServingError):
    """The request is wrong; ``violations`` names the fields."""

    code, reason = Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"


def invalid(field: str, description: str) -> InvalidArgument:
    """An InvalidArgument about one field."""
    return InvalidArgument(f"{field}: {description}", violations=[FieldViolation(field, description)])


class NotFound(ServingError):
    """No such model or version."""

    code, reason = Code.NOT_FOUND, "MODEL_NOT_FOUND"


class FailedPrecondition(ServingError):
    """OPERATION_UNDEFINED, NOT_READY or NOT_CALIBRATED."""

    code, reason = Code.FAILED_PRECONDITION, "OPERATION_UNDEFINED"


class ResourceExhausted(ServingError):
    """QUEUE_FULL or QUOTA; ``retry_after_s`` says when to come back."""

    code, reason = Code.RESOURCE_EXHAUSTED, "QUEUE_FULL"


class DeadlineExceeded(ServingError):
    """DEADLINE_INFEASIBLE (refused at admission) or DEADLINE_MISSED."""

    code, reason = Code.DEADLINE_EXCEEDED, "DEADLINE_MISSED"


class Unavailable(ServingError):
    """DRAINING or DEVICE_LOST; another replica may serve it."""

    code, reason = Code.UNAVAILABLE, "DRAINING"


class Unauthenticated(ServingError):
    """No bearer token, a malformed one, or one that this server does not know."""

    code, reason = Code.UNAUTHENTICATED, "UNAUTHENTICATED"


class PermissionDenied(ServingError):
    """The token is known, but may not do this."""

    code, reason = Code.PERMISSION_DENIED, "PERMISSION_DENIED"


class Unimplemented(ServingError):
    """The method exists, but not at this address."""

    code, reason = Code.UNIMPLEMENTED, "ADMIN_ELSEWHERE"


class Cancelled(ServingError):
    """The client cancelled or went away."""

    code, reason = Code.CANCELLED, "CANCELLED"


class Internal(ServingError):
    """Our fault; ``metadata["error_id"]`` is in the log too."""

    code, reason = Code.INTERNAL, "INTERNAL"

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.metadata = {"error_id": secrets.token_hex(6), **{k: str(v) for k, v in details.items()}}
