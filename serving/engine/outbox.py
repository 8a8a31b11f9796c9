"""One direction of the pipe between a server and its engine's process: messages out, from a thread."""

from __future__ import annotations

import pickle
import queue
import threading
from multiprocessing.connection import Connection
from typing import Any

Message = tuple[Any, ...]
CLOSE_TIMEOUT_S = 10.0


class Outbox:
    """Sends messages in order; whoever puts one never waits for the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send, name="engine-outbox", daemon=True)

    def put(self, *message: Any) -> None:
        """Send soon; raises here what pickle raises, so that the sender's thread never does."""
        self._queue.put(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self) -> None:
        """Send what is left, then end."""
        self._queue.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)

    def _send(self) -> None:
        while (payload := self._queue.get()) is not None:
            try:
                self._pipe.send_bytes(payload)
            except OSError:  # the other side is gone; its reader says so
                return


def portable(error: Exception) -> Exception:
    """The error itself where it survives pickling, else one with the same text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
