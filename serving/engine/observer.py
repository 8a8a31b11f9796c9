"""What the engine tells whoever watches it; the default watches nothing."""

from __future__ import annotations

from typing import Protocol

from serving.engine.messages import Usage


class Observer(Protocol):
    """Cheap: called once per tick or per request, never per row."""

    def tick(self, model: str, component: str, seconds: float, rows: int, capacity: int) -> None:
        """One network run."""

    def finished(self, model: str, usage: Usage) -> None:
        """A request ended, however."""

    def queue(self, rows_queued: int, rows_active: int) -> None:
        """Result rows that wait for their first run, and that have begun."""

    def backlog(self, seconds: float) -> None:
        """Predicted device seconds of all admitted work."""


class Nobody:
    """Watches nothing."""

    def tick(self, model: str, component: str, seconds: float, rows: int, capacity: int) -> None:
        """One network run."""

    def finished(self, model: str, usage: Usage) -> None:
        """A request ended."""

    def queue(self, rows_queued: int, rows_active: int) -> None:
        """Rows by state."""

    def backlog(self, seconds: float) -> None:
        """Work left."""
