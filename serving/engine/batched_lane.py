"""Batched rows: of every table and call that wait for the network, as many as fit run together."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from serving.engine.lane import Keys, Lane, Tasks, Tick
from serving.engine.messages import ModelKey
from serving.engine.residents import Residents
from serving.engine.spans import CallSpan, PendingCall, Run, Span, TableSpan, lowest, owners_of
from serving.engine.steady import Steady
from serving.families.rows import FAILED, BatchedTable, Call, Loop, Tensors
from serving.runtime.network import Dims, Network, Part


class BatchedLane(Lane):
    """One network, the tables whose rows wait for it, and the calls that do."""

    def __init__(self, model: ModelKey, component: str, network: Network) -> None:
        super().__init__(model, component)
        self._network = network
        self.max_rows = network.options.max_rows
        self._tables: list[tuple[Residents, BatchedTable]] = []
        self._by_name: dict[str, Residents] = {}
        self._calls: list[PendingCall] = []
        self._contested = False
        self._last: Run | None = None
        self._bound_run: Run | None = None  # whose shortest form ``_steady`` is
        self._steady: Steady | None = None

    def add_table(self, name: str, table: BatchedTable) -> None:
        """A table whose rows this lane advances."""
        residents = Residents(table)
        self._tables.append((residents, table))
        self._by_name[name] = residents

    def add_loop(self, task: int, loop: Loop) -> None:
        """Rows that come to stay."""
        self._by_name[loop.table].add(task, loop)

    def add_call(self, task: int, call: Call) -> None:
        """Rows of one run each; ValueError where their shapes do not fit the network."""
        self._calls.append(PendingCall(task, call, self._network.dims(call.inputs), {}))

    def busy(self) -> bool:
        """Whether any row waits."""
        return bool(self._calls) or any(residents.busy for residents, _ in self._tables)

    def tasks(self) -> Tasks:
        """Of the rows in tables, and of the calls."""
        resident = [residents.owner[residents.alive] for residents, _ in self._tables]
        return np.concatenate([*resident, np.array([pending.task for pending in self._calls], np.int64)])

    def contest(self, keys: Keys | None) -> None:
        """For rows that wait for room in a table; where shares compete, the order changes with every run."""
        self._contested = keys is not None
        for residents, _ in self._tables:
            residents.order = keys

    def drop(self, task: int) -> None:
        """Forget the task's rows."""
        self._calls = [pending for pending in self._calls if pending.task != task]
        for residents, _ in self._tables:
            residents.release(task)

    def tick(self, keys: Keys) -> Tick:
        """One network run over the rows whose turn it is; first, what ended at admission."""
        ended = Tick(np.empty(0, np.int64), np.empty(0, np.int64))
        if any(residents.busy and ended.admitted(residents) for residents, _ in self._tables):
            return ended
        if not self._holds():
            self._last = self._choose(keys)
        assert self._last is not None
        return self._step(self._last)

    def again(self) -> Tick | None:
        """Where the last run's rows are again all that wait, or the first of them, in the same places."""
        return self._step(self._last) if self._last is not None and self._holds() else None

    def _holds(self) -> bool:
        """Whether the same rows would be chosen again."""
        return self._last is not None and not self._calls and self._last.version == self._version()

    def _step(self, run: Run) -> Tick:
        """In the shortest form that there is; where it fails, in the one that finds the guilty row."""
        if self._bound_run is not run:
            self._bound_run, self._steady = run, self._bind(run)
        steady = self._steady
        ended = FAILED if steady is None else steady.step()
        if steady is None or ended == FAILED:
            return self._run(run)
        return steady.settle() if ended else steady.tick

    def _bind(self, run: Run) -> Steady | None:
        """The run in its shortest form."""
        return Steady.of(run, self._tick_of(run))

    def _run(self, run: Run) -> Tick:
        tick = self._tick_of(run)
        self._attempt(run, tick)
        return tick

    def _tick_of(self, run: Run) -> Tick:
        return Tick(run.tasks, run.weights, run.rows, run.binding.capacity, self._padding(run.rows))

    def _padding(self, rows: int) -> int:
        fixed = self._network.options.fixed_rows
        return -rows % fixed if fixed else 0

    # -- choosing ------------------------------------------------------------------------------------

    def _version(self) -> int:
        return sum(residents.version for residents, _ in self._tables)

    def _choose(self, keys: Keys) -> Run:
        """All rows of one shape where they fit, else those with the lowest keys."""
        waiting = self._waiting()
        dims = self._dims(waiting[0]) if len(waiting) == 1 else self._first_shape(waiting, keys)
        spans = [span for span in waiting if self._dims(span) == dims]
        binding = self._network.binding(dims)
        lasting = len(spans) == len(waiting) and all(
            isinstance(span, TableSpan) and span.table.steady for span in spans
        )
        if sum(span.rows for span in spans) > binding.capacity:
            # Those with the least work left have less of it after a step, so they stay the first.
            spans, lasting = lowest(spans, keys, binding.capacity), lasting and not self._contested
        return Run(binding, dims, spans, self._version() if lasting else None)

    def _waiting(self) -> list[Span]:
        spans: list[Span] = []
        for residents, table in self._tables:
            if residents.active:
                slots = residents.alive.nonzero()[0]
                spans.append(TableSpan(residents, slots, table.width(slots)))
        return spans + [CallSpan(p, p.done, p.left) for p in self._calls]

    def _first_shape(self, spans: list[Span], keys: Keys) -> Dims:
        if len({self._dims(span) for span in spans}) == 1:
            return self._dims(spans[0])
        return self._dims(min(spans, key=lambda span: float(keys(owners_of(span)[0]).min())))

    @staticmethod
    def _dims(span: Span) -> Dims:
        return span.residents.table.dims if isinstance(span, TableSpan) else span.pending.dims

    # -- running -------------------------------------------------------------------------------------

    def _attempt(self, run: Run, tick: Tick) -> None:
        """Run; where that raises, run the halves, until the guilty row is alone and fails."""
        try:
            self._gather(run)
            run.binding.run(run.rows)
        except Exception as error:
            self._last = None
            halves = run.halves()
            if halves is None:
                tick.failed.append((int(run.tasks[0]), error))
                return
            for half in halves:
                self._attempt(half, tick)
            return
        self._advance(run, tick)

    @staticmethod
    def _gather(run: Run) -> None:
        for span, part in zip(run.spans, run.parts, strict=True):
            if isinstance(span, TableSpan):
                steps = span.steps(part)
                if steps is None:
                    span.table.gather(span.slots, part.inputs)
                else:
                    steps[0]()
            else:
                for name, value in span.pending.call.inputs.items():
                    part.inputs[name].copy_(value[span.start : span.start + span.rows])

    def _advance(self, run: Run, tick: Tick) -> None:
        bad = None if run.whole.finite() else non_finite_rows(run.whole.outputs)
        for span, part, (start, end) in zip(run.spans, run.parts, run.bounds, strict=True):
            spoiled = None if bad is None else bad[start:end]
            try:
                if isinstance(span, TableSpan):
                    _advance_table(span, part, spoiled, tick)
                else:
                    self._advance_call(span, part.outputs, spoiled, tick)
            except Exception as error:  # its rows may have advanced in part: all of them fail
                tick.failed += [(task, error) for task in np.unique(owners_of(span)[0]).tolist()]

    def _advance_call(
        self, span: CallSpan, outputs: Tensors, bad: NDArray[np.bool_] | None, tick: Tick
    ) -> None:
        pending = span.pending
        if bad is not None and bad.any():
            tick.nonfinite.append(pending.task)
            return
        for name, value in outputs.items():
            if name not in pending.outputs:
                pending.outputs[name] = value.new_empty((pending.call.rows, *value.shape[1:]))
            pending.outputs[name][span.start : span.start + span.rows].copy_(value)
        pending.done += span.rows
        if pending.left == 0:
            self._calls.remove(pending)
            tick.complete.append((pending.task, lambda: pending.outputs))


def _advance_table(span: TableSpan, part: Part, bad: NDArray[np.bool_] | None, tick: Tick) -> None:
    slots, table, outputs = span.slots, span.table, part.outputs
    steps = span.steps(part)
    if bad is not None and bad.any():
        owner = table.owners(slots)
        guilty = np.isin(span.residents.owner[slots], np.unique(span.residents.owner[slots[owner[bad]]]))
        tick.nonfinite += np.unique(span.residents.owner[slots[guilty]]).tolist()
        keep = torch.from_numpy(np.flatnonzero(~guilty[owner]))
        outputs = {name: value[keep.to(value.device)] for name, value in outputs.items()}
        slots, steps = slots[~guilty], None
    if not len(slots):
        return
    if steps is None:
        table.advance(slots, outputs)
    else:
        steps[1]()
    tick.stepped.append((span.residents, slots))
    final, complete = span.residents.settle(slots)
    if len(final):
        tick.final.append((span.residents, final))
    tick.complete += [(task, partial(span.residents.take, task)) for task in complete]


def non_finite_rows(outputs: Tensors) -> NDArray[np.bool_]:
    """[rows] which rows hold NaN or infinity in a floating point output."""
    numbers = [value for value in outputs.values() if value.is_floating_point()]
    bad = [~torch.isfinite(value).flatten(1).all(1).cpu().numpy() for value in numbers]
    return np.asarray(np.any(bad, axis=0))
