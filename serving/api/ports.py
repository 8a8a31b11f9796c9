"""What the servicers need of the engine, so that they can be tested without one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from serving.engine.messages import Event, ModelKey, Options, Quote
from serving.families.request import Request
from serving.repository.loader import Loader


class Ticket(Protocol):
    """The caller's end of one request."""

    def cancel(self) -> None:
        """Free its rows by the next tick."""

    def __aiter__(self) -> AsyncIterator[Event]:
        """Events up to Finished or Failed."""


class Engine(Loader, Protocol):
    """Takes requests from the event loop; returns at once."""

    @property
    def alive(self) -> bool:
        """Whether ticks are running."""

    def quote(self, key: ModelKey, request: Request) -> Quote:
        """What the request would cost now."""

    def submit(self, key: ModelKey, request: Request, options: Options) -> Ticket:
        """Admit a request; raises ServingError where it is refused."""
