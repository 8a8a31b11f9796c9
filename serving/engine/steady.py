"""A run whose rows stay: gather, network, check and advance as calls with nothing left to find out.

After a network run the caches are cold, and every function, attribute and array that a step touches costs
microseconds (docs/findings/tick-cost.md); so what can be found once is bound once.
"""

from __future__ import annotations

from functools import partial

from serving.engine.lane import Tick
from serving.engine.residents import Residents
from serving.engine.spans import Run, TableSpan
from serving.families.rows import FAILED, Advance, Slots, Step


class Steady:
    """``tick`` tells of one step in which nothing happened to any row."""

    def __init__(
        self, run: Run, spans: list[TableSpan], steps: list[tuple[Step, Advance]], tick: Tick
    ) -> None:
        self.tick = tick
        self._rows: list[tuple[Residents, Slots]] = [(span.residents, span.slots) for span in spans]
        tick.stepped += self._rows
        self._gathers = [gather for gather, _ in steps]
        self._advances = [advance for _, advance in steps]
        self._network = run.binding.bound(run.rows)
        # A table looks at its own output; at those of others before any of them has advanced.
        self._checks = run.whole.checks if len(spans) > 1 or len(run.whole.checks) > 1 else ()

    @classmethod
    def of(cls, run: Run, tick: Tick) -> Steady | None:
        """None where any row of the run is not a table's, or its table has no such form."""
        spans = [span for span in run.spans if isinstance(span, TableSpan)]
        if len(spans) < len(run.spans):
            return None
        steps = [span.steps(part) for span, part in zip(spans, run.parts, strict=True)]
        bound = [step for step in steps if step is not None]
        return cls(run, spans, bound, tick) if len(bound) == len(spans) else None

    def step(self) -> int:
        """How many rows ended by one step; FAILED: the run raised or is not finite, no row has advanced."""
        for gather in self._gathers:
            gather()
        try:
            self._network()
        except Exception:  # the ordinary run that follows finds the guilty row
            return FAILED
        for finite in self._checks:
            if not finite():
                return FAILED
        if len(self._advances) == 1:
            return self._advances[0]()
        return sum(advance() for advance in self._advances)

    def settle(self) -> Tick:
        """Who is final or complete, after a step by which rows ended."""
        told = self.tick
        tick = Tick(told.tasks, told.rows, told.network_rows, told.capacity, told.padded_rows)
        tick.stepped += self._rows
        for residents, slots in self._rows:
            final, complete = residents.settle(slots)
            if len(final):
                tick.final.append((residents, final))
            tick.complete += [(task, partial(residents.take, task)) for task in complete]
        return tick
