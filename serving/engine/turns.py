"""Whose turn it is: the higher priority, the share, the model that has had least; then lanes in rotation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from serving.engine.lane import Lane, Tasks
from serving.engine.messages import ModelKey


class Claims(Protocol):
    """What tasks may claim (serving.engine.ledger.Ledger)."""

    @property
    def contested(self) -> bool:
        """Whether it matters whose turn it is."""

    def claim(self, tasks: Tasks) -> tuple[float, float]:
        """How urgent they are, lower first."""


class Turns:
    """Start-time fair queueing in measured device seconds.

    A model that was idle starts where the least of the busy ones stood when its current run began, so that
    it neither spends credit saved while idle nor waits for a second long run (Goyal et al. 1996, SFQ: the
    system's virtual time is the start tag of what is in service).
    """

    def __init__(self, claims: Claims | None = None) -> None:
        """``claims``: of tasks, which go before the models' turns where shares or priorities compete."""
        self._claims = claims
        self._virtual_s: dict[ModelKey, float] = {}
        self._began_s: dict[ModelKey, float] = {}  # virtual time before the last charge
        self._busy: set[ModelKey] = set()
        self._serial = 0
        self.rivals = 0  # other lanes that were busy at the last choice

    def choose(self, lanes: Iterable[Lane]) -> Lane | None:
        """The busy lane whose turn it is, or None."""
        busy = [lane for lane in lanes if lane.busy()]
        if not busy:
            self._busy.clear()
            return None
        lane, self.rivals = busy[0], len(busy) - 1
        if len(busy) > 1 or self._busy != {lane.model}:
            self._wake({lane.model for lane in busy})
            lane = min(busy, key=self._claimed if self._claims and self._claims.contested else self._turn)
        self._serial += 1
        lane.ticked = self._serial
        return lane

    def _turn(self, lane: Lane) -> tuple[float, ...]:
        return self._virtual_s[lane.model], lane.ticked

    def _claimed(self, lane: Lane) -> tuple[float, ...]:
        assert self._claims is not None
        return *self._claims.claim(lane.tasks()), *self._turn(lane)

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
        # They came while the last run was in service, even if that was the last of its model.
        running = [self._began_s.get(model, self._virtual_s[model]) for model in self._busy]
        floor = min(running) if running else max(self._virtual_s.values(), default=0.0)
        for model in models - self._busy:
            self._virtual_s[model] = max(self._virtual_s.get(model, 0.0), floor)
        self._busy = models
