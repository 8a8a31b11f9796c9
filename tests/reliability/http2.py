"""Just enough HTTP/2 to be a bad client: frames by hand over a socket, half of them if need be (RFC 9113)."""

from __future__ import annotations

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW = 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(path: str, stream: int = 1) -> bytes:
    """HEADERS of a gRPC call: literal fields, neither indexed nor compressed (RFC 7541, 6.2.2)."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(b"\x00" + _literal(name) + _literal(value) for name, value in fields.items())
    return frame(HEADERS, END_HEADERS, stream, block)


def message(payload: bytes, stream: int = 1) -> bytes:
    """DATA with one whole gRPC message, and the end of the requests."""
    return frame(DATA, END_STREAM, stream, b"\x00" + struct.pack(">I", len(payload)) + payload)


def settings(window_bytes: int) -> bytes:
    """SETTINGS: how much a stream may send before it is told that more is welcome."""
    return frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, window_bytes))


def _literal(text: str) -> bytes:
    assert len(text) < 127
    return bytes([len(text)]) + text.encode()


class BadClient:
    """A connection that never reads unless it is asked to."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10.0)

    def send(self, *parts: bytes) -> BadClient:
        """Send bytes, whatever they are."""
        self.socket.sendall(b"".join(parts))
        return self

    def ask(self, path: str, payload: bytes, window_bytes: int = 65535) -> BadClient:
        """A whole call, with a window of that size for its answer."""
        return self.send(PREFACE, settings(window_bytes), headers(path), message(payload))

    def read(self, size: int) -> bytes:
        """At least a byte; empty where the server has closed."""
        return self.socket.recv(size)

    def reset(self) -> None:
        """RST instead of FIN: the peer's next write or read fails."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """FIN."""
        self.socket.close()
