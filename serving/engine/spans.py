"""Spans: rows of one table or one call in a run; and the run that puts spans side by side."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from serving.engine.lane import Keys, joined
from serving.engine.residents import Residents
from serving.families.rows import Advance, BatchedTable, Call, Slots, Step
from serving.runtime.network import Binding, Dims, Part

Owners = tuple[NDArray[np.int64], NDArray[np.int64]]


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


class TableSpan:
    """Rows of a table in a run; ``width`` network rows each, ``rows`` in all."""

    def __init__(self, residents: Residents, slots: Slots, width: NDArray[np.int64]) -> None:
        self.residents, self.slots, self.width = residents, slots, width
        self.rows = int(np.add.reduce(width))

    @property
    def table(self) -> BatchedTable:
        """Whose rows they are."""
        table = self.residents.table
        assert isinstance(table, BatchedTable)
        return table

    def steps(self, part: Part) -> tuple[Step, Advance] | None:
        """The table's shortest form of a step in these buffers, if it has one."""
        return self.table.bound(self.slots, part.inputs, part.outputs)


@dataclass(frozen=True)
class CallSpan:
    """Rows ``start .. start + rows`` of a call in a run."""

    pending: PendingCall
    start: int
    rows: int


Span = TableSpan | CallSpan


class Run:
    """Spans in a binding's buffers, with all that stays the same if they run together again.

    ``version`` (None: never run again) is that of the lane's tables when the spans were chosen.
    """

    def __init__(self, binding: Binding, dims: Dims, spans: list[Span], version: int | None = None) -> None:
        self.binding, self.dims, self.spans, self.version = binding, dims, spans, version
        ends = list(itertools.accumulate(span.rows for span in spans))
        self.rows = ends[-1]
        self.bounds = list(zip([0, *ends[:-1]], ends, strict=True))
        self.parts = [binding.part(*bounds) for bounds in self.bounds]
        self.whole = self.parts[0] if len(spans) == 1 else binding.part(0, self.rows)
        owners = [owners_of(span) for span in spans]
        self.tasks, self.weights = owners[0] if len(owners) == 1 else joined(owners)

    def halves(self) -> tuple[Run, Run] | None:
        """Two runs of half the rows each; None for a single row."""
        halves = _halves(self.spans)
        if halves is None:
            return None
        return Run(self.binding, self.dims, halves[0]), Run(self.binding, self.dims, halves[1])


def owners_of(span: Span) -> Owners:
    """(tasks, network rows) of a span's rows, pairwise."""
    if isinstance(span, TableSpan):
        return span.residents.owner[span.slots], span.width
    return np.array([span.pending.task]), np.array([span.rows])


def lowest(spans: list[Span], keys: Keys, capacity: int) -> list[Span]:
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
    owners, weights = owners_of(span)
    count = len(owners)
    return owners, np.full(count, index), np.arange(count), weights


def _halves(spans: list[Span]) -> tuple[list[Span], list[Span]] | None:
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
