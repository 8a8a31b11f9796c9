"""Inputs for denoise_rows: rows of a table in the positions of a batch, some of them inert."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from kernels import rows
from kernels.rows import FIELDS, Operands
from tests.kernels.cases import Case, Maker

CAPACITY, LINES = 11, 30


@dataclass(frozen=True)
class Sizes:
    """``positions`` of a batch, of which every third is inert; ``n`` elements per row."""

    positions: int
    n: int
    output: torch.dtype = torch.float32
    network: torch.dtype = torch.float32
    time: torch.dtype = torch.float32
    given: bool = True


def rows_case(sizes: Sizes, make: Maker) -> Case:
    """Launch and reference on copies of the operands, which both change; they return what they changed."""
    operands = rows_operands(sizes, make)
    name = f"denoise_rows {sizes.positions}x{sizes.n} {sizes.output} {sizes.network} given {sizes.given}"
    return Case(name, changed(rows.launch), changed(rows.reference), operands, 1, exact=True)


def changed(operator: Callable[..., None]) -> Callable[..., tuple[torch.Tensor, ...]]:
    """What an operator leaves in its operands."""

    def run(*operands: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        copies = Operands(*(value if value is None else value.clone() for value in operands))  # type: ignore[arg-type]
        operator(*copies)
        active = copies.positions[rows.SLOT] >= 0
        line = copies.positions[rows.LINE][active]
        _forget(copies)
        return copies.x, copies.x0, line, copies.network_x, copies.network_t, copies.bad

    return run


def _forget(given: Operands) -> None:
    """Rows whose output was not finite are failed: what is left of them is nobody's business."""
    position = given.bad.nonzero().squeeze(1)
    slot = given.positions[rows.SLOT, position]
    given.x[slot], given.x0[:, slot] = 0.0, 0.0
    for where in (position, given.positions[rows.TWIN, position]):
        given.network_x[where] = 0.0


def rows_operands(sizes: Sizes, make: Maker) -> Operands:
    """Random rows: some guided, some with given entries, with and without noise and history."""
    positions, network_rows = _positions(sizes.positions, make)
    wide = make.normal(network_rows, sizes.n + 3, dtype=sizes.output)
    if sizes.positions > 1:
        wide[int(positions[rows.TWIN, 1]), 0] = torch.inf
    known = make.normal(CAPACITY, sizes.n) if sizes.given else None
    observed = make.below(2, CAPACITY, sizes.n).bool() if sizes.given else None
    return Operands(
        make.normal(CAPACITY, sizes.n), make.normal(3, CAPACITY, sizes.n), lines(make), positions, wide,
        torch.zeros(network_rows, sizes.n, dtype=sizes.network),
        torch.zeros(network_rows, dtype=sizes.time), torch.zeros(sizes.positions, dtype=torch.int32),
        known, observed,
    )  # fmt: skip


def lines(make: Maker) -> torch.Tensor:
    """Random coefficients, a third of them zero; bounds on half of the lines; whole times."""
    table = make.normal(LINES, rows.COLUMNS)
    table[make.below(3, LINES, rows.COLUMNS) == 0] = 0.0
    bound = torch.where(make.below(2, LINES) == 0, torch.inf, 0.7)
    table[:, 3], table[:, 4] = -bound, bound
    table[:, rows.TIME] = (100 * table[:, rows.TIME]).round()
    return table


def _positions(count: int, make: Maker) -> tuple[torch.Tensor, int]:
    """Fields of every position, and how many rows the network runs."""
    own = torch.arange(count)
    guided = make.below(2, count).bool()
    slot = torch.randperm(CAPACITY, generator=make.generator)[:count]
    first = make.below(LINES // 2, count)
    fields = torch.zeros(FIELDS, count, dtype=torch.int64)
    fields[rows.SLOT] = torch.where((own % 3 == 2) & (count > 1), -1, slot)
    fields[rows.TWIN] = torch.where(guided, count - 1 + guided.cumsum(0), own)
    fields[rows.FIRST], fields[rows.LINE] = first, first + make.below(LINES // 2, count)
    fields[rows.NEXT] = fields[rows.LINE]
    fields[rows.DEPTH], fields[rows.MASKED] = make.below(4, count), make.below(2, count)
    fields[rows.SEED], fields[rows.ROW] = make.counter(count), make.counter(count)
    fields[rows.WORDS] = 16 * make.below(5, count)
    return fields, count + int(guided.sum())


SIZES = (
    Sizes(1, 5),
    Sizes(7, 20),
    Sizes(6, 77, torch.float16, torch.float16),
    Sizes(6, 77, torch.bfloat16, torch.float32, torch.int64),
    Sizes(5, 2100, given=False),
    replace(Sizes(0, 4), given=False),
)
