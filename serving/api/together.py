"""Requests that come by one stream, answered many at a time, each reply as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

AT_ONCE = 64  # answered, or waiting to be read, at any time; further requests are not taken off the wire

Asked = TypeVar("Asked")
Reply = TypeVar("Reply")


async def together(
    requests: AsyncIterator[Asked], answer: Callable[[Asked], Awaitable[Reply]], at_once: int = AT_ONCE
) -> AsyncGenerator[Reply, None]:
    """Replies in the order in which they are ready; what ``requests`` raises is raised after those begun.

    ``answer`` does not raise. Closing the generator cancels what still runs.
    """
    room, running = asyncio.Semaphore(at_once), set[asyncio.Task[None]]()
    ready: asyncio.Queue[Reply | None] = asyncio.Queue()

    async def one(request: Asked) -> None:
        ready.put_nowait(await answer(request))

    async def read() -> None:
        try:
            async for request in requests:
                await room.acquire()
                task = asyncio.create_task(one(request))
                running.add(task)
                task.add_done_callback(running.discard)
        finally:
            if running:
                await asyncio.wait(running)
            ready.put_nowait(None)

    reading = asyncio.create_task(read())
    try:
        while (reply := await ready.get()) is not None:
            yield reply
            room.release()
        await reading
    finally:
        await _ended({reading, *running})


async def _ended(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel what still runs, and wait until it has let go."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, Exception):
            await task
