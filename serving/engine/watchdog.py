"""Notices a network run that never ends, and errors after which no run will ever succeed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

STICKY = ("cuda error", "cudnn error", "device-side assert", "cuda failure", "unspecified launch failure")
RECOVERABLE = ("out of memory",)


def is_sticky(error: BaseException) -> bool:
    """Whether an error poisons the device's context; exhausted memory does not."""
    text = str(error).lower()
    return any(sign in text for sign in STICKY) and not any(sign in text for sign in RECOVERABLE)


class Watched(Protocol):
    """What the watchdog needs of the worker."""

    lost: str

    @property
    def tick_began_s(self) -> float | None:
        """When the run under way began, if there is one."""

    def lose(self, why: str) -> None:
        """Fail everything in flight."""


class Watchdog:
    """A thread that looks a few times per ``hang_s`` at how long the current run has taken."""

    def __init__(self, worker: Watched, hang_s: float, clock: Callable[[], float]) -> None:
        self._worker = worker
        self._hang_s = hang_s
        self._clock = clock
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(min(1.0, self._hang_s / 4)):
            began_s = self._worker.tick_began_s
            if began_s is not None and self._clock() - began_s > self._hang_s:
                self._worker.lose(f"a network run has not ended for {self._hang_s:.0f} s")
                return
