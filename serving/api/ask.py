"""One request to the engine and back: events, or the answer; leaving early frees its rows."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from serving.api.ports import Engine, Ticket
from serving.api.refusals import Refusals
from serving.api.rpc import Call
from serving.engine.messages import Event, Failed, Finished, ModelKey, Options
from serving.errors import Internal, ServingError
from serving.families.request import Request

_NAMED_ROWS = 50  # in an error's metadata


class Asking:
    """The engine, and what it refused a moment ago."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.refusals = Refusals()

    async def events(
        self, key: ModelKey, request: Request, options: Options, call: Call | None = None
    ) -> AsyncGenerator[Event, None]:
        """Events up to Finished; raises what Failed holds, naming its rows. ``call`` learns of them."""
        ticket = self._begun(key, request, options, call)
        try:
            async for event in ticket:
                self._heard(event, key, request, options, call)
                yield event
        finally:
            ticket.cancel()

    async def answer(
        self, key: ModelKey, request: Request, options: Options, call: Call | None = None
    ) -> Finished:
        """The last event; raises ServingError."""
        ticket = self._begun(key, request, options, call)
        try:
            async for event in ticket:
                self._heard(event, key, request, options, call)
                if isinstance(event, Finished):
                    return event
        finally:
            ticket.cancel()
        raise Internal("the engine gave no answer")

    def _begun(self, key: ModelKey, request: Request, options: Options, call: Call | None) -> Ticket:
        self.refusals.check(key, request, options)
        try:
            ticket = self._engine.submit(key, request, options)
        except ServingError as error:
            self.refusals.learn(key, request, options, error)
            raise
        if call is not None:
            call.admitted(request)
        return ticket

    def _heard(
        self, event: Event, key: ModelKey, request: Request, options: Options, call: Call | None
    ) -> None:
        if call is not None:
            call.heard(event)
        if isinstance(event, Failed):
            error = _failure(event)
            self.refusals.learn(key, request, options, error)
            raise error


def _failure(failed: Failed) -> ServingError:
    error = failed.error
    if failed.rows is not None and len(failed.rows):
        named = ",".join(str(row) for row in failed.rows[:_NAMED_ROWS].tolist())
        error.metadata.setdefault("rows", named + (",…" if len(failed.rows) > _NAMED_ROWS else ""))
    return error
