"""ServingError to gRPC status: code, message, google.rpc details, retry pushback."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from serving.errors import Code, ServingError

DOMAIN = "pxserve"
DETAILS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"

# Trailers share gRPC's 8 KiB of metadata; a hundred wrong fields must not hide the first ones.
_MAX_TEXT = 500
_MAX_VIOLATIONS = 5

_CODES = {code.value[0]: code for code in grpc.StatusCode}

Metadata = tuple[tuple[str, str | bytes], ...]


def code_of(error: ServingError) -> grpc.StatusCode:
    """gRPC's code of the same number."""
    return _CODES[error.code.value]


def message_of(error: ServingError) -> str:
    """The status message, short enough for a trailer."""
    return _short(error.message)


def trailers_of(error: ServingError) -> Metadata:
    """``grpc-status-details-bin``, and the retry pushback where the error says when to come back."""
    status = status_pb2.Status(code=error.code.value, message=message_of(error))
    for detail in _details(error):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    trailers: Metadata = ((DETAILS_KEY, status.SerializeToString()),)
    if error.retry_after_s is not None:
        trailers += ((PUSHBACK_KEY, str(max(0, round(error.retry_after_s * 1000)))),)
    return trailers


def _details(
    error: ServingError,
) -> list[error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo]:
    metadata = {key: _short(value) for key, value in error.metadata.items()}
    details: list[
        error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo
    ] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=_short(violation.field),
                        description=_short(violation.description),
                        reason=Code.INVALID_ARGUMENT.name,
                    )
                    for violation in error.violations[:_MAX_VIOLATIONS]
                ]
            )
        )
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(max(0, round(error.retry_after_s * 1000)))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def _short(text: str) -> str:
    printable = text.encode("utf-8", "replace").decode("utf-8")
    return printable if len(printable) <= _MAX_TEXT else f"{printable[:_MAX_TEXT]}…"
