"""The same engine in a process of its own: large messages cannot slow it, and it may crash alone.

Parent and child exchange pickled messages over one pipe. The child answers calls (load, unload, quote)
by number and pushes events of tickets; both sides send in batches, from a thread of their own.
"""

from __future__ import annotations

import itertools
import multiprocessing
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from serving.engine.engine import Engine
from serving.engine.messages import Event, Failed, ModelKey, Options, Quote, Usage
from serving.engine.model import LoadedModel
from serving.engine.observer import Nobody, Observer
from serving.engine.ticket import Ticket
from serving.errors import ServingError, Unavailable
from serving.families.calibration import Calibration
from serving.families.request import Request

if TYPE_CHECKING:
    from export.package.read import Package

Message = tuple[Any, ...]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0


class ProcessEngine:
    """Engine's interface; refusals at admission arrive as the ticket's first event."""

    def __init__(
        self, *, metrics: Observer | None = None, setup: Callable[[], None] | None = None, **settings: Any
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=child, args=(theirs, settings, setup), name="pxserve-engine", daemon=True
        )
        self._theirs = theirs
        self._metrics = metrics or Nobody()
        self._numbers = itertools.count(1)
        self._tickets: dict[int, Ticket] = {}
        self._calls: dict[int, Future[Any]] = {}
        self._outbox = Outbox(self._pipe)
        self._reader = threading.Thread(target=self._read, name="engine-events", daemon=True)
        self._lost = False

    @property
    def alive(self) -> bool:
        """Whether the child runs and its device answers."""
        return self._process.is_alive() and not self._lost

    def start(self) -> None:
        """Start the child; returns when it answers."""
        self._process.start()
        self._theirs.close()
        self._outbox.start()
        self._reader.start()
        self._call("ping").result(START_TIMEOUT_S)

    def stop(self, grace_s: float = 0.0) -> None:
        """As Engine.stop; the child has ended afterwards."""
        if self.alive:
            self._outbox.put(("stop", grace_s))
            self._process.join(grace_s + STOP_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def load(self, key: ModelKey, package: Package, calibration: Calibration | None = None) -> LoadedModel:
        """As Engine.load."""
        loaded: LoadedModel = self._call("load", key, package, calibration).result()
        return loaded

    def unload(self, key: ModelKey) -> None:
        """As Engine.unload."""
        self._call("unload", key).result()

    def quote(self, key: ModelKey, request: Request) -> Quote:
        """As Engine.quote."""
        quote: Quote = self._call("quote", key, request).result()
        return quote

    def submit(self, key: ModelKey, request: Request, options: Options | None = None) -> Ticket:
        """As Engine.submit; what the child refuses becomes the ticket's only event."""
        if not self.alive:
            raise Unavailable("the engine's process has ended; ask another replica", reason="DEVICE_LOST")
        ticket = Ticket(next(self._numbers), lambda number: self._outbox.put(("cancel", number)))
        self._tickets[ticket.number] = ticket
        self._outbox.put(("submit", ticket.number, key, request, options or Options()))
        return ticket

    def _call(self, name: str, *arguments: Any) -> Future[Any]:
        number = next(self._numbers)
        future = self._calls[number] = Future()
        self._outbox.put(("call", number, name, arguments))
        return future

    def _read(self) -> None:
        """Until the child ends: pass on what it says; then fail whatever still waits."""
        try:
            while True:
                for message in self._pipe.recv():
                    self._hear(message)
        except (EOFError, OSError):
            self._lost = True
        gone = Unavailable("the engine's process has ended; ask another replica", reason="DEVICE_LOST")
        for ticket in list(self._tickets.values()):
            ticket.post(Failed(gone))
        for future in list(self._calls.values()):
            future.set_exception(gone)

    def _hear(self, message: Message) -> None:
        kind, *rest = message
        if kind == "event":
            number, event, last = rest
            ticket = self._tickets.pop(number, None) if last else self._tickets.get(number)
            if ticket is not None:
                ticket.post(event)
        elif kind == "observed":
            name, arguments = rest
            getattr(self._metrics, name)(*arguments)
        elif kind == "lost":
            self._lost = True
        else:
            number, value, error = rest
            future = self._calls.pop(number)
            future.set_result(value) if error is None else future.set_exception(error)


class Outbox:
    """Sends what was put since the last send in one go."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send, name="engine-outbox", daemon=True)
        self.put = self._queue.put

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self) -> None:
        """Send what is left, then end."""
        self._queue.put(None)
        self._thread.join(STOP_TIMEOUT_S)

    def _send(self) -> None:
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            try:
                self._pipe.send([message for message in batch if message is not None])
            except (BrokenPipeError, OSError):
                return
            if None in batch:
                return


class RemoteTicket(Ticket):
    """The child's end of a ticket: events go into the outbox."""

    def __init__(self, number: int, outbox: Outbox, ended: Callable[[int], None]) -> None:
        super().__init__(number, lambda _: None)
        self._outbox = outbox
        self._ended = ended

    def post(self, event: Event) -> None:
        """Called by the engine's thread."""
        self._outbox.put(("event", self.number, event, is_last(event)))
        if is_last(event):
            self._ended(self.number)


def is_last(event: Event) -> bool:
    """Whether nothing follows it."""
    from serving.engine.messages import Finished

    return isinstance(event, Finished | Failed)


class RemoteObserver:
    """Forwards what the engine tells its observer."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def tick(self, model: str, component: str, seconds: float, rows: int, capacity: int) -> None:
        """One network run."""
        self._outbox.put(("observed", "tick", (model, component, seconds, rows, capacity)))

    def finished(self, model: str, usage: Usage) -> None:
        """A request ended."""
        self._outbox.put(("observed", "finished", (model, usage)))

    def queue(self, rows_queued: int, rows_active: int) -> None:
        """Rows by state."""
        self._outbox.put(("observed", "queue", (rows_queued, rows_active)))

    def backlog(self, seconds: float) -> None:
        """Work left."""
        self._outbox.put(("observed", "backlog", (seconds,)))


def child(pipe: Connection, settings: Mapping[str, Any], setup: Callable[[], None] | None) -> None:
    """The child's main function: serve messages until told to stop or the parent is gone."""
    if setup is not None:
        setup()
    outbox = Outbox(pipe)
    outbox.start()
    engine = Engine(metrics=RemoteObserver(outbox), **settings)
    engine.start()
    Child(engine, outbox).serve(pipe)
    outbox.close()


class Child:
    """Turns messages into calls of the engine."""

    def __init__(self, engine: Engine, outbox: Outbox) -> None:
        self._engine = engine
        self._outbox = outbox
        self._numbers: dict[int, Ticket] = {}

    def serve(self, pipe: Connection) -> None:
        """Until ``stop`` or end of file."""
        while True:
            try:
                messages = pipe.recv()
            except (EOFError, OSError):
                self._engine.stop()
                return
            for kind, *rest in messages:
                if kind == "stop":
                    self._engine.stop(*rest)
                    return
                getattr(self, kind)(*rest)
            if not self._engine.alive:
                self._outbox.put(("lost",))

    def submit(self, number: int, key: ModelKey, request: Request, options: Options) -> None:
        """Admit; a refusal is an event."""
        ticket = RemoteTicket(number, self._outbox, self._forget)
        try:
            self._numbers[number] = self._engine.submit(key, request, options, ticket=ticket)
        except ServingError as error:
            ticket.post(Failed(error))

    def _forget(self, number: int) -> None:
        self._numbers.pop(number, None)

    def cancel(self, number: int) -> None:
        """The caller left."""
        if number in self._numbers:
            self._engine.cancel(number)

    def call(self, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        """Blocking calls run on threads of their own, so that loading a model stops nothing."""
        threading.Thread(target=self._answer, args=(number, name, arguments), daemon=True).start()

    def _answer(self, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            value = None if name == "ping" else getattr(self._engine, name)(*arguments)
        except Exception as error:
            self._outbox.put(("answer", number, None, error))
        else:
            self._outbox.put(("answer", number, value, None))
