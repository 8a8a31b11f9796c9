"""Loops that end at admission: without a step to make, or not taken by their table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from serving.errors import Internal
from serving.families.rows import Loop, Slots
from tests.serving.engine.test_engine import WAIT_S, nothing_left
from tests.serving.engine.toy import KEY, Toy, answer, sample, toy


@pytest.fixture
def made() -> Iterator[Toy]:
    it = toy()
    it.engine.start()
    yield it
    it.engine.stop()


def test_a_loop_without_steps_is_answered_at_once(made: Toy) -> None:
    request = sample(2, 0)
    np.testing.assert_array_equal(made.engine.submit(KEY, request).result(WAIT_S).data, answer(request))  # type: ignore[union-attr]
    assert nothing_left(made)


def test_a_loop_that_its_table_does_not_take_fails_alone(made: Toy) -> None:
    admit = made.lane._tables[0][1].admit

    def refuse(slots: Slots, loop: Loop) -> None:
        if loop.rows == 3:
            raise RuntimeError("no room")
        admit(slots, loop)

    setattr(made.lane._tables[0][1], "admit", refuse)  # noqa: B010
    tickets = [made.engine.submit(KEY, sample(rows, 30)) for rows in (2, 3, 4)]
    with pytest.raises(Internal):
        tickets[1].result(WAIT_S)
    assert tickets[0].result(WAIT_S)
    assert tickets[2].result(WAIT_S)
    assert nothing_left(made)
