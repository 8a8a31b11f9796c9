"""The caller's end of a request: events come in, a cancel goes out; bounded however slow the reader."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

from serving.engine.messages import Advanced, Event, Failed, Finished, Previewed
from serving.families.result import Result


class Ticket:
    """Events of one request, in order; waiting progress and previews are replaced by newer ones.

    Iterate with ``async for`` where it was made inside a running event loop, else with ``for``.
    """

    def __init__(self, number: int, cancel: Callable[[int], None]) -> None:
        self.number = number
        self._cancel = cancel
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._closed = False
        self._ready: threading.Event | None = None  # made by whoever blocks
        self._aready = asyncio.Event()
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    def cancel(self) -> None:
        """Free the request's rows by the next tick; nobody is told where it has ended."""
        if not self._closed:
            self._cancel(self.number)

    def post(self, event: Event) -> None:
        """Called by the engine's thread."""
        with self._lock:
            if self._closed:  # a lost engine and a run that ends after all may both want the last word
                return
            self._closed = isinstance(event, Finished | Failed)
            first = not self._events
            if not self._coalesced(event):
                self._events.append(event)
        if first:
            self._wake()

    def result(self, timeout_s: float | None = None) -> Result:
        """Block for the answer; raises its ServingError, or TimeoutError."""
        finished = self.finished(timeout_s)
        return finished.result

    def finished(self, timeout_s: float | None = None) -> Finished:
        """Block for the last event; raises its ServingError, or TimeoutError."""
        ready = self._blocking()
        while True:
            if not ready.wait(timeout_s):
                raise TimeoutError(f"no answer in {timeout_s} s")
            for event in self._take():
                if isinstance(event, Finished):
                    return event
                if isinstance(event, Failed):
                    raise event.error

    def __iter__(self) -> Iterator[Event]:
        ready = self._blocking()
        while True:
            ready.wait()
            for event in self._take():
                yield event
                if isinstance(event, Finished | Failed):
                    return

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            await self._aready.wait()
            for event in self._take():
                yield event
                if isinstance(event, Finished | Failed):
                    return

    def _take(self) -> list[Event]:
        with self._lock:
            events = list(self._events)
            self._events.clear()
            if self._ready is not None:
                self._ready.clear()
            self._aready.clear()
        return events

    def _blocking(self) -> threading.Event:
        """Set while events wait; dear to make, and most readers are asynchronous."""
        with self._lock:
            if self._ready is None:
                self._ready = threading.Event()
                if self._events:
                    self._ready.set()
            return self._ready

    def _wake(self) -> None:
        if self._ready is not None:
            self._ready.set()
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._aready.set)
            except RuntimeError:  # the reader's loop is closed: nobody waits any more
                self.cancel()

    def _coalesced(self, event: Event) -> bool:
        """Replace a waiting event that this one makes stale."""
        for index, waiting in enumerate(self._events):
            newer = _newer(waiting, event)
            if newer is not None:
                self._events[index] = newer
                return True
        return False


def _newer(waiting: Event, event: Event) -> Event | None:
    """What stands for both, where the one makes the other stale; a running estimate lasts to the next."""
    if isinstance(waiting, Advanced) and isinstance(event, Advanced):
        return event if event.partial is not None else replace(event, partial=waiting.partial)
    if isinstance(waiting, Previewed) and isinstance(event, Previewed) and waiting.row == event.row:
        return event
    return None
