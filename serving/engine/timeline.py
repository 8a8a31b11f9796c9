"""Where the time of traced requests went: runs by network and phase, in sums; nobody else pays for it."""

from __future__ import annotations

from dataclasses import replace

from serving.engine.lane import Tick
from serving.engine.messages import Stage
from serving.engine.task import Task

Key = tuple[str, str]  # component, phase


class Timelines:
    """Stages of each traced task, by its place in the ledger."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[Task, dict[Key, Stage]]] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def begin(self, task: Task) -> None:
        """Follow a task."""
        self._open[task.index] = (task, {})

    def end(self, task: Task) -> tuple[Stage, ...]:
        """Its stages in the order in which they began; none where it was not followed."""
        _, stages = self._open.pop(task.index, (task, {}))
        return tuple(stages.values())

    def ran(self, component: str, tick: Tick, begun_s: float, ended_s: float) -> None:
        """One tick; before its tasks are resumed."""
        for index, (task, stages) in self._open.items():
            rows = int(tick.rows[tick.tasks == index].sum())
            if rows:
                phase = "prefill" if tick.prefill else "network" if task.loop is None else "steps"
                stage = stages.get((component, phase)) or Stage(component, phase, begun_s)
                stages[component, phase] = replace(
                    stage,
                    ended_s=ended_s,
                    runs=stage.runs + 1,
                    seconds=stage.seconds + ended_s - begun_s,
                    rows=stage.rows + rows,
                    batch_rows=stage.batch_rows + tick.network_rows,
                )
