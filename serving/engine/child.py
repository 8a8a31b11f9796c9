"""The engine's end of the pipe: the main function of the process that ``--engine process`` starts."""

from __future__ import annotations

import gc
import logging
import pickle
import signal
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from serving.engine.engine import Engine
from serving.engine.messages import Event, Failed, Finished, ModelKey, Options
from serving.engine.model import LoadedModel
from serving.engine.observer import Report
from serving.engine.outbox import Outbox, portable
from serving.engine.ticket import Ticket
from serving.errors import Internal, ServingError
from serving.families.calibration import Calibration
from serving.families.request import Request

if TYPE_CHECKING:
    from export.package.read import Package

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.2  # at whether the engine is still alive


def run(pipe: Connection, settings: Mapping[str, Any], setup: Callable[[], None] | None) -> None:
    """Serve messages until told to stop, until the server is gone, or until the engine is lost."""
    # A terminal or a supervisor signals both processes; only the server knows when its requests are done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if setup is not None:
        setup()
    outbox = Outbox(pipe)
    outbox.start()
    engine = Engine(metrics=RemoteObserver(outbox), **settings)
    gc.freeze()  # of what was imported; else full collections look at it, which stops ticks for 0.1 s
    engine.start()
    Child(engine, outbox).serve(pipe)
    engine.stop()
    outbox.close()


class Child:
    """Turns messages into calls of the engine."""

    def __init__(self, engine: Engine, outbox: Outbox) -> None:
        self._engine = engine
        self._outbox = outbox

    def serve(self, pipe: Connection) -> None:
        """Until the engine has ended or the pipe has."""
        try:
            while self._engine.alive:
                if pipe.poll(LOOK_EVERY_S):
                    kind, *rest = pickle.loads(pipe.recv_bytes())
                    getattr(self, kind)(*rest)
        except (EOFError, OSError):
            return
        self._outbox.put("ended")

    def submit(self, number: int, key: ModelKey, request: Request, options: Options) -> None:
        """Admit; a refusal is an event."""
        ticket = RemoteTicket(number, self._outbox)
        try:
            self._engine.submit(key, request, options, ticket=ticket)
        except ServingError as error:
            ticket.post(Failed(error))
        except Exception as error:
            ticket.fail(error)

    def cancel(self, number: int) -> None:
        """The caller left."""
        self._engine.cancel(number)

    def call(self, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        """Blocking calls run on threads of their own, so that loading a model stops nothing."""
        threading.Thread(target=self._answer, args=(number, name, arguments), daemon=True).start()

    def load(self, key: ModelKey, package: Package, calibration: Calibration | None) -> LoadedModel:
        """As Engine.load; that the networks run is told by a message of its own."""
        return self._engine.load(key, package, calibration, lambda: self._outbox.put("warming", key))

    def stop(self, grace_s: float) -> None:
        """Let admitted work finish, then end; requests may still be cancelled meanwhile."""
        threading.Thread(target=self._engine.stop, args=(grace_s,), daemon=True).start()

    def _answer(self, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            asked = self.load if name == "load" else getattr(self._engine, name)
            self._outbox.put("answer", number, asked(*arguments), None)
        except Exception as error:
            self._outbox.put("answer", number, None, portable(error))


class RemoteTicket(Ticket):
    """The child's end of a ticket: events go into the outbox."""

    def __init__(self, number: int, outbox: Outbox) -> None:
        super().__init__(number, lambda _: None)
        self._outbox = outbox

    def post(self, event: Event) -> None:
        """Called by the engine's thread."""
        if self._closed:
            return
        self._closed = isinstance(event, Finished | Failed)
        try:
            self._outbox.put("event", self.number, event)
        except Exception as error:  # an answer that cannot be pickled is this request's misfortune only
            self.fail(error)

    def fail(self, cause: Exception) -> None:
        """End with INTERNAL; the log has the cause."""
        error = Internal("the engine's process failed; the error id finds it in the server's log")
        log.error("request failed (error id %s)", error.metadata["error_id"], exc_info=cause)
        self._closed = True
        self._outbox.put("event", self.number, Failed(error))


class RemoteObserver:
    """Forwards what the engine tells its observer: one message per report, not per tick."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def report(self, report: Report) -> None:
        """What happened since the last one."""
        self._outbox.put("observed", report)
