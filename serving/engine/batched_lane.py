"""Batched rows: of every table and call that wait for the network, as many as fit run together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import isfinite

import numpy as np
import torch
from numpy.typing import NDArray

from serving.engine.lane import Keys, Lane, Tick, joined
from serving.engine.messages import ModelKey
from serving.engine.residents import Residents
from serving.families.rows import BatchedTable, Call, Loop, Slots, Tensors
from serving.runtime.network import Binding, Dims, Network


@dataclass(eq=False)
class PendingCall:
    """A call, of which ``done`` rows have run."""

    task: int
    call: Call
    dims: Dims
    outputs: dict[str, torch.Tensor]
    done: int = 0

    @property
    def left(self) -> int:
        """Rows still to run."""
        return self.call.rows - self.done


@dataclass(frozen=True)
class TableSpan:
    """Rows of a table in a run; ``width`` network rows each."""

    residents: Residents
    slots: Slots
    width: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """Network rows."""
        return int(self.width.sum())


@dataclass(frozen=True)
class CallSpan:
    """Rows ``start .. start + rows`` of a call in a run."""

    pending: PendingCall
    start: int
    rows: int


Span = TableSpan | CallSpan


class BatchedLane(Lane):
    """One network, the tables whose rows wait for it, and the calls that do."""

    def __init__(self, model: ModelKey, component: str, network: Network) -> None:
        super().__init__(model, component)
        self._network = network
        self.max_rows = network.options.max_rows
        self._tables: list[tuple[Residents, BatchedTable]] = []
        self._by_name: dict[str, Residents] = {}
        self._calls: list[PendingCall] = []

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
        return bool(self._calls) or any(residents.active for residents, _ in self._tables)

    def drop(self, task: int) -> None:
        """Forget the task's rows."""
        self._calls = [pending for pending in self._calls if pending.task != task]
        for residents, _ in self._tables:
            residents.release(task)

    def tick(self, keys: Keys) -> Tick:
        """One network run over the rows whose turn it is."""
        dims, spans = self._choose(keys)
        binding = self._network.binding(dims)
        tick = Tick(np.empty(0, np.int64), np.empty(0, np.int64), capacity=binding.capacity)
        self._attempt(binding, spans, tick)
        parts = [_owners(span) for span in spans]
        tick.tasks, tick.rows = joined(parts)
        tick.network_rows = sum(span.rows for span in spans)
        return tick

    # -- choosing ------------------------------------------------------------------------------------

    def _choose(self, keys: Keys) -> tuple[Dims, list[Span]]:
        """All rows of one shape where they fit, else those with the lowest keys."""
        spans = self._waiting()
        shapes = {self._dims(span) for span in spans}
        dims = shapes.pop() if len(shapes) == 1 else self._first_shape(spans, keys)
        spans = [span for span in spans if self._dims(span) == dims]
        capacity = self._network.binding(dims).capacity
        if sum(span.rows for span in spans) <= capacity:
            return dims, spans
        return dims, _lowest(spans, keys, capacity)

    def _waiting(self) -> list[Span]:
        spans: list[Span] = []
        for residents, table in self._tables:
            if residents.active:
                slots = np.flatnonzero(residents.alive)
                spans.append(TableSpan(residents, slots, table.width(slots)))
        return spans + [CallSpan(p, p.done, p.left) for p in self._calls]

    def _first_shape(self, spans: list[Span], keys: Keys) -> Dims:
        return self._dims(min(spans, key=lambda span: float(keys(_owners(span)[0]).min())))

    @staticmethod
    def _dims(span: Span) -> Dims:
        return span.residents.table.dims if isinstance(span, TableSpan) else span.pending.dims

    # -- running -------------------------------------------------------------------------------------

    def _attempt(self, binding: Binding, spans: list[Span], tick: Tick) -> None:
        """Run; where that raises, run the halves, until the guilty row is alone and fails."""
        try:
            self._gather(binding, spans)
            binding.run(sum(span.rows for span in spans))
        except Exception as error:
            halves = _halves(spans)
            if halves is None:
                tick.failed.append((int(_owners(spans[0])[0][0]), error))
                return
            for half in halves:
                self._attempt(binding, half, tick)
            return
        self._advance(binding, spans, tick)

    @staticmethod
    def _gather(binding: Binding, spans: list[Span]) -> None:
        start = 0
        for span in spans:
            views = {name: value[start : start + span.rows] for name, value in binding.inputs.items()}
            if isinstance(span, TableSpan):
                _table(span).gather(span.slots, views)
            else:
                for name, value in span.pending.call.inputs.items():
                    views[name].copy_(value[span.start : span.start + span.rows])
            start += span.rows

    def _advance(self, binding: Binding, spans: list[Span], tick: Tick) -> None:
        rows = sum(span.rows for span in spans)
        bad = non_finite_rows({name: value[:rows] for name, value in binding.outputs.items()})
        start = 0
        for span in spans:
            outputs = {name: value[start : start + span.rows] for name, value in binding.outputs.items()}
            spoiled = None if bad is None else bad[start : start + span.rows]
            try:
                if isinstance(span, TableSpan):
                    _advance_table(span, outputs, spoiled, tick)
                else:
                    self._advance_call(span, outputs, spoiled, tick)
            except Exception as error:  # its rows may have advanced in part: all of them fail
                tick.failed += [(task, error) for task in np.unique(_owners(span)[0]).tolist()]
            start += span.rows

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


def _table(span: TableSpan) -> BatchedTable:
    table = span.residents.table
    assert isinstance(table, BatchedTable)
    return table


def _advance_table(span: TableSpan, outputs: Tensors, bad: NDArray[np.bool_] | None, tick: Tick) -> None:
    slots, table = span.slots, _table(span)
    if bad is not None and bad.any():
        owner = table.owners(slots)
        guilty = np.isin(span.residents.owner[slots], np.unique(span.residents.owner[slots[owner[bad]]]))
        tick.nonfinite += np.unique(span.residents.owner[slots[guilty]]).tolist()
        keep = torch.from_numpy(np.flatnonzero(~guilty[owner]))
        outputs = {name: value[keep.to(value.device)] for name, value in outputs.items()}
        slots = slots[~guilty]
    if not len(slots):
        return
    table.advance(slots, outputs)
    tick.stepped.append((span.residents, slots))
    final, complete = span.residents.settle(slots)
    if len(final):
        tick.final.append((span.residents, final))
    tick.complete += [(task, partial(span.residents.take, task)) for task in complete]


def non_finite_rows(outputs: Tensors) -> NDArray[np.bool_] | None:
    """[rows] which rows hold NaN or infinity; None where none does (one reduction per output)."""
    suspects = [v for v in outputs.values() if v.is_floating_point() and not isfinite(v.sum().item())]
    if not suspects:
        return None
    bad = np.zeros(suspects[0].shape[0], np.bool_)
    for value in suspects:
        bad |= ~torch.isfinite(value).flatten(1).all(1).cpu().numpy()
    return bad


def _owners(span: Span) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if isinstance(span, TableSpan):
        return span.residents.owner[span.slots], span.width
    return np.array([span.pending.task]), np.array([span.rows])


def _lowest(spans: list[Span], keys: Keys, capacity: int) -> list[Span]:
    """The rows with the lowest keys that fit; a call may be taken in part."""
    entries = [_entries(index, span) for index, span in enumerate(spans)]
    owner, source, position, weight = (np.concatenate(column) for column in zip(*entries, strict=True))
    order = np.argsort(keys(owner), kind="stable")
    room = capacity - (np.cumsum(weight[order]) - weight[order])
    divisible = np.array([isinstance(span, CallSpan) for span in spans])[source[order]]
    fits = (room > 0) & ((weight[order] <= room) | divisible)
    chosen: list[Span] = []
    for index, span in enumerate(spans):
        mine = order[fits & (source[order] == index)]
        if not len(mine):
            continue
        if isinstance(span, TableSpan):
            picked = np.sort(position[mine])
            chosen.append(TableSpan(span.residents, span.slots[picked], span.width[picked]))
        else:
            rows = int(min(span.rows, room[np.flatnonzero(order == mine[0])[0]]))
            chosen.append(CallSpan(span.pending, span.start, rows))
    return chosen


def _entries(index: int, span: Span) -> tuple[NDArray[np.int64], ...]:
    owners, weights = _owners(span)
    count = len(owners)
    return owners, np.full(count, index), np.arange(count), weights


def _halves(spans: list[Span]) -> tuple[list[Span], list[Span]] | None:
    """Split in two by rows; None for a single row."""
    if len(spans) > 1:
        return spans[: len(spans) // 2], spans[len(spans) // 2 :]
    span = spans[0]
    if isinstance(span, TableSpan):
        half = len(span.slots) // 2
        if half == 0:
            return None
        return (
            [TableSpan(span.residents, span.slots[:half], span.width[:half])],
            [TableSpan(span.residents, span.slots[half:], span.width[half:])],
        )
    half = span.rows // 2
    if half == 0:
        return None
    return (
        [CallSpan(span.pending, span.start, half)],
        [CallSpan(span.pending, span.start + half, span.rows - half)],
    )
