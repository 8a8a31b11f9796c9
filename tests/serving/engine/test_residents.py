"""Slots of a table: rows come in together, wait in order, and leave nothing behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from serving.engine.residents import FREE, Residents
from serving.families.rows import Loop
from tests.serving.engine.toy import WIDTH, HalvingTable


def loop(rows: int, steps: int = 3, value: float = 1.0) -> Loop:
    return Loop("halve", rows, torch.full((rows, WIDTH), value), np.full(rows, steps))


def run(residents: Residents) -> list[int]:
    """One step of all rows; complete tasks."""
    slots = np.flatnonzero(residents.alive)
    table = residents.table
    assert isinstance(table, HalvingTable)
    table.advance(slots, {"y": torch.zeros(len(slots), WIDTH)})
    return residents.settle(slots)[1]


def test_rows_take_the_lowest_free_slots() -> None:
    residents = Residents(HalvingTable(8))
    for task, rows in ((10, 2), (11, 3), (12, 2)):
        residents.add(task, loop(rows))
    residents.release(11)
    residents.add(13, loop(2))
    assert residents.owner.tolist() == [10, 10, 13, 13, FREE, 12, 12, FREE]
    assert residents.active == 6


def test_loops_wait_in_order_and_whole() -> None:
    residents = Residents(HalvingTable(4))
    for task, rows in ((1, 3), (2, 4), (3, 1)):
        residents.add(task, loop(rows))
    assert residents.waiting_rows() == 5  # the last one would fit, but does not overtake
    residents.release(1)
    assert residents.owner.tolist() == [2, 2, 2, 2]
    residents.release(2)
    assert residents.owner.tolist() == [3, FREE, FREE, FREE]


def test_a_waiting_loop_that_is_dropped_lets_the_next_in() -> None:
    residents = Residents(HalvingTable(4))
    for task, rows in ((1, 3), (2, 4), (3, 1)):
        residents.add(task, loop(rows))
    residents.release(2)
    assert residents.owner.tolist() == [1, 1, 1, 3]


def test_what_never_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="holds 4"):
        Residents(HalvingTable(4)).add(1, loop(5))


def test_a_loop_is_complete_with_its_last_row() -> None:
    residents = Residents(HalvingTable(4))
    residents.add(1, Loop("halve", 2, torch.ones(2, WIDTH), np.array([1, 2])))
    residents.add(2, loop(1, 2))
    assert run(residents) == []
    assert residents.active == 2
    assert run(residents) == [1, 2]
    taken = residents.take(1)
    np.testing.assert_array_equal(taken["x"][:, 0].numpy(), [0.5, 0.25])
    assert residents.owner.tolist() == [FREE, FREE, 2, FREE]


def test_unknown_tasks_are_released_without_harm() -> None:
    residents = Residents(HalvingTable(2))
    residents.add(1, loop(1))
    residents.release(9)
    assert residents.active == 1
