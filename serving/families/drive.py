"""Drives a program alone, without an engine: the answer that every batched run must equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from serving.families.result import Result
from serving.families.rows import BatchedTable, Call, Loop, Program, Progress, SlottedTable, Table, Tensors

Network = Callable[[Tensors], Tensors]


def run_alone(program: Program, networks: Mapping[str, Network], tables: Mapping[str, Table]) -> Result:
    """Run to the end; ``networks`` maps component names to functions of named tensors [rows, ...]."""
    answer: Tensors = {}
    try:
        work = next(program)
        while True:
            answer = _answer(work, networks, tables)
            work = program.send(answer)
    except StopIteration as stop:
        result: Result = stop.value
        return result


def _answer(
    work: Call | Loop | Progress, networks: Mapping[str, Network], tables: Mapping[str, Table]
) -> Tensors:
    if isinstance(work, Progress):
        return {}
    if isinstance(work, Call):
        return networks[work.component](work.inputs)
    table = tables[work.table]
    if isinstance(table, SlottedTable):
        return _slotted(work, table)
    assert isinstance(table, BatchedTable)
    return _batched(work, table, networks[table.component])


def _batched(loop: Loop, table: BatchedTable, network: Network) -> Tensors:
    slots = np.arange(loop.rows)
    table.admit(slots, loop)
    while len(active := slots[table.remaining(slots) > 0]):
        inputs = empty_inputs(network, int(table.width(active).sum()))
        table.gather(active, inputs)
        table.advance(active, network(inputs))
    result = table.result(slots)
    table.release(slots)
    return result


def _slotted(loop: Loop, table: SlottedTable) -> Tensors:
    slots = np.arange(loop.rows)
    table.admit(slots, loop)
    for slot in table.pending_prefill():
        while table.prefill(int(slot)):
            pass
    while len(active := slots[table.remaining(slots) > 0]):
        table.decode(active)
    result = table.result(slots)
    table.release(slots)
    return result


def empty_inputs(network: Network, rows: int) -> Tensors:
    """Buffers for ``rows`` rows; a network names its inputs in ``specs``: name -> (dtype, row shape)."""
    specs: Mapping[str, tuple[torch.dtype, tuple[int, ...]]] = getattr(network, "specs")  # noqa: B009
    return {name: torch.empty((rows, *shape), dtype=dtype) for name, (dtype, shape) in specs.items()}
