"""The same engine in a process of its own: large messages cannot slow it, and it may crash alone.

Server and child exchange pickled messages over one pipe (``serving.engine.child`` is its other end).
Calls (load, unload, quote) are answered by number; events of tickets and observations are pushed.
"""

from __future__ import annotations

import atexit
import itertools
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from serving.engine import child
from serving.engine.messages import Event, Failed, Finished, ModelKey, Options, Quote
from serving.engine.model import LoadedModel
from serving.engine.observer import Nobody, Observer
from serving.engine.outbox import Message, Outbox
from serving.engine.ticket import Ticket
from serving.errors import Unavailable
from serving.families.calibration import Calibration
from serving.families.request import Request

if TYPE_CHECKING:
    from export.package.read import Package

STOP_TIMEOUT_S = 10.0


class ProcessEngine:
    """Engine's interface; refusals at admission arrive as the ticket's first event.

    ``setup`` runs first thing in the child (logging, say); ``settings`` are Engine's.
    """

    def __init__(
        self, *, metrics: Observer | None = None, setup: Callable[[], None] | None = None, **settings: Any
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        self._process = context.Process(
            target=child.run, args=(self._theirs, settings, setup), name="pxserve-engine", daemon=True
        )
        self._metrics = metrics or Nobody()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()  # of the two below, and of the moment when the child is given up
        self._tickets: dict[int, Ticket] = {}
        self._calls: dict[int, Future[Any]] = {}
        self._warming: dict[ModelKey, Callable[[], object]] = {}  # of loads under way
        self._gone: Unavailable | None = None
        self._stopping = False
        self._outbox = Outbox(self._pipe)
        self._reader = threading.Thread(target=self._read, name="engine-events", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the child runs and its device answers."""
        return self._gone is None and self._process.is_alive()

    @property
    def pid(self) -> int | None:
        """Process id of the child; None before it was started."""
        return self._process.pid

    def start(self) -> None:
        """Start the child; what is asked of it meanwhile waits."""
        self._process.start()
        self._theirs.close()
        self._outbox.start()
        self._reader.start()
        atexit.register(self.stop)  # before multiprocessing's own, which would wait for the child for ever

    def stop(self, grace_s: float = 0.0) -> None:
        """As Engine.stop; the child has ended afterwards."""
        atexit.unregister(self.stop)
        self._stopping = True
        if self.alive:
            self._outbox.put("stop", grace_s)
            self._process.join(grace_s + STOP_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        if self._reader.is_alive():
            self._reader.join(STOP_TIMEOUT_S)
        self._outbox.close()

    def load(
        self,
        key: ModelKey,
        package: Package,
        calibration: Calibration | None = None,
        warming: Callable[[], object] = lambda: None,
    ) -> LoadedModel:
        """As Engine.load."""
        self._warming[key] = warming
        try:
            loaded: LoadedModel = self._call("load", key, package, calibration)
        finally:
            del self._warming[key]
        return loaded

    def unload(self, key: ModelKey) -> None:
        """As Engine.unload."""
        self._call("unload", key)

    def quote(self, key: ModelKey, request: Request) -> Quote:
        """As Engine.quote."""
        quote: Quote = self._call("quote", key, request)
        return quote

    def submit(self, key: ModelKey, request: Request, options: Options | None = None) -> Ticket:
        """As Engine.submit; what the child refuses becomes the ticket's only event."""
        ticket = Ticket(next(self._numbers), lambda number: self._outbox.put("cancel", number))
        with self._lock:
            if self._gone is not None:
                raise self._gone
            self._tickets[ticket.number] = ticket
        self._outbox.put("submit", ticket.number, key, request, options or Options())
        return ticket

    def _call(self, name: str, *arguments: Any) -> Any:
        number, future = next(self._numbers), Future[Any]()
        with self._lock:
            if self._gone is not None:
                raise self._gone
            self._calls[number] = future
        self._outbox.put("call", number, name, arguments)
        return future.result()

    def _read(self) -> None:
        """Until the child ends: pass on what it says."""
        try:
            while True:
                self._hear(pickle.loads(self._pipe.recv_bytes()))
        except (EOFError, OSError):
            self._give_up()

    def _hear(self, message: Message) -> None:
        kind, *rest = message
        if kind == "event":
            self._pass_on(*rest)
        elif kind == "observed":
            self._metrics.report(*rest)
        elif kind == "warming":
            self._warming.get(rest[0], lambda: None)()
        elif kind == "ended":
            self._give_up()
        else:
            number, value, error = rest
            with self._lock:
                future = self._calls.pop(number)
            future.set_result(value) if error is None else future.set_exception(error)

    def _pass_on(self, number: int, event: Event) -> None:
        last = isinstance(event, Finished | Failed)
        with self._lock:
            ticket = self._tickets.pop(number, None) if last else self._tickets.get(number)
        if ticket is not None:
            ticket.post(event)

    def _give_up(self) -> None:
        """Fail whatever still waits for the child, and refuse what comes."""
        reason = "DRAINING" if self._stopping else "DEVICE_LOST"
        gone = Unavailable("the engine's process has ended; ask another replica", reason=reason)
        with self._lock:
            self._gone = self._gone or gone
            tickets, self._tickets = self._tickets, {}
            calls, self._calls = self._calls, {}
        for ticket in tickets.values():
            ticket.post(Failed(gone))
        for future in calls.values():
            future.set_exception(gone)
