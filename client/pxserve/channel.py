"""Where and how the clients connect, and when they try again."""

from __future__ import annotations

import ipaddress
import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc

from pxserve.errors import REQUEST_ID, FailedCall, PxserveError, from_call
from pxserve.script import Call, Delivery
from pxserve.tracing import trace_metadata

Tls = bool | str | Path | grpc.ChannelCredentials | None
MAX_ATTEMPTS = 4
PRIORITY = "x-priority"

# All calls may be repeated: they change nothing, or (LoadModel, UnloadModel) nothing more the second time.
# A stream is repeated only before its first message.
# Round robin: where the target's name has several addresses (a headless Service), all of them get work.
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "pxserve.v1.GenerativeService"}, {"service": "pxserve.v1.ModelService"}],
            "retryPolicy": {
                "maxAttempts": MAX_ATTEMPTS,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.5},
}

OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.enable_retries", 1),
    ("grpc.per_rpc_retry_buffer_size", 64 << 20),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
]


@dataclass(frozen=True)
class Endpoint:
    """Target and credentials; ``timeout_s`` applies where a call sets none.

    ``tls``: True for the system's roots, a path to a PEM file of roots, or credentials; ``token`` goes
    with every call as ``authorization: Bearer``. Without TLS it would travel readable, so beyond this machine
    that takes ``allow_plaintext_token`` (ValueError otherwise): for networks that encrypt by themselves.
    """

    target: str
    tls: Tls = None
    token: str | None = field(default=None, repr=False)
    timeout_s: float | None = None
    allow_plaintext_token: bool = False

    def __post_init__(self) -> None:
        guarded = bool(self.tls) or self.allow_plaintext_token or is_local(self.target)
        if self.token and not guarded:
            raise ConnectionSettingError(
                f"a token for {self.target} would travel unencrypted: use TLS, or allow_plaintext_token "
                "where the network encrypts"
            )

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """None for an insecure channel. Reads the roots' file."""
        if self.tls is None or self.tls is False:
            return None
        if self.tls is True:
            return grpc.ssl_channel_credentials()
        if isinstance(self.tls, str | Path):
            return grpc.ssl_channel_credentials(Path(self.tls).read_bytes())
        return self.tls

    def metadata(self, delivery: Delivery) -> tuple[tuple[str, str], ...]:
        """Of one call."""
        entries = {
            "authorization": self.token and f"Bearer {self.token}",
            REQUEST_ID: delivery.request_id,
            PRIORITY: delivery.priority and str(delivery.priority),
        }
        given = tuple((name, value) for name, value in entries.items() if value)
        return given + trace_metadata()

    def clock(self, delivery: Delivery) -> Clock:
        """Starts now."""
        timeout_s = self.timeout_s if delivery.timeout_s is None else delivery.timeout_s
        return Clock(None if timeout_s is None else time.monotonic() + timeout_s)


class ConnectionSettingError(ValueError):
    """Settings of a connection that do not fit together."""


def is_local(target: str) -> bool:
    """Whether a gRPC target is on this machine: a loopback address, localhost, or a Unix socket."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    address = target.removeprefix("dns:").removeprefix("ipv4:").removeprefix("ipv6:").rpartition("/")[2]
    host = address.rpartition(":")[0] if address.count(":") == 1 or "]" in address else address
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass
class Clock:
    """One deadline (``time.monotonic`` seconds) for all calls and repetitions of a script."""

    deadline: float | None
    repetitions: int = 0

    def left_s(self) -> float | None:
        """Until the deadline, never negative; None without one."""
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)

    def pause_s(self, error: PxserveError) -> float | None:
        """How long to wait before repeating an exhausted call; None: do not.

        Only where the server said when to come back, at most ``MAX_ATTEMPTS`` - 1 times, and only if the
        deadline is later. Waits up to a quarter longer, so that callers do not come back all at once.
        """
        self.repetitions += 1
        told = error.retry_after_s
        if error.code is not grpc.StatusCode.RESOURCE_EXHAUSTED or told is None:
            return None
        pause_s, left_s = told * random.uniform(1.0, 1.25), self.left_s()
        late = left_s is not None and pause_s >= left_s
        return None if late or self.repetitions >= MAX_ATTEMPTS else pause_s


@dataclass
class Replies:
    """Replies of cached calls, dropped when the server finds a request wrong: the model may have changed."""

    known: dict[tuple[str, bytes], Any] = field(default_factory=dict)

    def get(self, call: Call[Any]) -> Any:
        """An earlier reply, or None."""
        return self.known.get(self._key(call)) if call.cached else None

    def put(self, call: Call[Any], reply: Any) -> None:
        """Remember the reply of a cached call once the model is described in full."""
        if call.cached and reply.model.HasField("data"):
            self.known[self._key(call)] = reply

    def doubt(self, error: PxserveError) -> None:
        """Forget everything after an error that stale descriptions can cause."""
        if error.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
            self.known.clear()

    @staticmethod
    def _key(call: Call[Any]) -> tuple[str, bytes]:
        return call.rpc.path, call.request.SerializeToString(deterministic=True)


def pause_s(failed: grpc.RpcError, clock: Clock, replies: Replies, delivered: bool = False) -> float:
    """How long to wait before repeating a failed call; raises PxserveError where that is not to be done.

    A stream that has ``delivered`` something is not repeated.
    """
    error = from_call(cast(FailedCall, failed))
    replies.doubt(error)
    told_s = None if delivered else clock.pause_s(error)
    if told_s is None:
        raise error from failed
    return told_s
