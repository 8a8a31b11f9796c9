"""Whose turn it is: the model that has had the least device time, weighted; then its lanes in rotation."""

from __future__ import annotations

from collections.abc import Iterable

from serving.engine.lane import Lane
from serving.engine.messages import ModelKey


class Turns:
    """Start-time fair queueing in measured device seconds.

    A model that was idle starts where the least of the busy ones stood when its current run began, so that
    it neither spends credit saved while idle nor waits for a second long run (Goyal et al. 1996, SFQ: the
    system's virtual time is the start tag of what is in service).
    """

    def __init__(self) -> None:
        self._virtual_s: dict[ModelKey, float] = {}
        self._began_s: dict[ModelKey, float] = {}  # virtual time before the last charge
        self._busy: set[ModelKey] = set()
        self._serial = 0

    def choose(self, lanes: Iterable[Lane]) -> Lane | None:
        """The busy lane whose turn it is, or None."""
        busy = [lane for lane in lanes if lane.busy()]
        if not busy:
            self._busy.clear()
            return None
        self._wake({lane.model for lane in busy})
        lane = min(busy, key=lambda lane: (self._virtual_s[lane.model], lane.ticked))
        self._serial += 1
        lane.ticked = self._serial
        return lane

    def charge(self, model: ModelKey, seconds: float) -> None:
        """Device time that a model was given."""
        self._began_s[model] = self._virtual_s.get(model, 0.0)
        self._virtual_s[model] = self._began_s[model] + seconds

    def forget(self, model: ModelKey) -> None:
        """A model was unloaded."""
        self._virtual_s.pop(model, None)
        self._began_s.pop(model, None)
        self._busy.discard(model)

    def _wake(self, models: set[ModelKey]) -> None:
        running = [self._began_s.get(model, self._virtual_s[model]) for model in self._busy & models]
        floor = min(running) if running else max(self._virtual_s.values(), default=0.0)
        for model in models - self._busy:
            self._virtual_s[model] = max(self._virtual_s.get(model, 0.0), floor)
        self._busy = models
