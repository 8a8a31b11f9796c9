"""One request to the engine and back: events, or the answer; leaving early frees its rows."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from serving.api.ports import Engine
from serving.engine.messages import Event, Failed, Finished, ModelKey, Options
from serving.errors import Internal, ServingError
from serving.families.request import Request

_NAMED_ROWS = 50  # in an error's metadata


async def events_of(
    engine: Engine, key: ModelKey, request: Request, options: Options
) -> AsyncGenerator[Event, None]:
    """Events up to Finished; raises what Failed holds, naming its rows."""
    ticket = engine.submit(key, request, options)
    try:
        async for event in ticket:
            if isinstance(event, Failed):
                raise _failure(event)
            yield event
    finally:
        ticket.cancel()


async def answer_of(engine: Engine, key: ModelKey, request: Request, options: Options) -> Finished:
    """The last event; raises ServingError."""
    async with aclosing(events_of(engine, key, request, options)) as events:
        async for event in events:
            if isinstance(event, Finished):
                return event
    raise Internal("the engine gave no answer")


def _failure(failed: Failed) -> ServingError:
    error = failed.error
    if failed.rows is not None and len(failed.rows):
        named = ",".join(str(row) for row in failed.rows[:_NAMED_ROWS].tolist())
        error.metadata.setdefault("rows", named + (",…" if len(failed.rows) > _NAMED_ROWS else ""))
    return error
