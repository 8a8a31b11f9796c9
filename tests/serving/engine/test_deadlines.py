"""Deadlines come in order, once each; who waits in vain is told at once; the ended are forgotten."""

from __future__ import annotations

import math

import pytest

from serving.engine.deadlines import HOPELESS, PASSED, TRIAGE_EVERY_S, Deadlines
from serving.engine.estimate import StepTime
from serving.engine.lane import Lane
from serving.engine.ledger import Ledger, Place

RUN_S, DEPTH, CAPACITY = 0.01, 100, 2  # a task of one row takes a second


class Fixed(Lane):
    """A lane of two rows whose runs take ten milliseconds."""

    def __init__(self) -> None:
        self.number, self.max_rows, self.step_time = 7, CAPACITY, StepTime()
        for _ in range(10):
            self.step_time.observe(CAPACITY, RUN_S)

    busy = tasks = contest = tick = add_loop = drop = None  # type: ignore[assignment]


Fixed.__abstractmethods__ = frozenset()


@pytest.fixture
def lane() -> Lane:
    return Fixed()


class Queue:
    """Requests of one row each that were admitted."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.deadlines = Deadlines(self.ledger)

    def admit(self, number: int, due_s: float, lane: int = 7) -> int:
        """Its index in the ledger."""
        task = self.ledger.open(DEPTH, 1, 1.0, 0.0, 0, place=Place(lane, DEPTH, due_s))
        if math.isfinite(due_s):
            self.deadlines.add(due_s, number, task)
        return task

    def begin(self, task: int) -> None:
        """Its first run is over."""
        self.ledger.started[task] = 0.0


def test_deadlines_pass_in_order_once_each() -> None:
    queue = Queue()
    for deadline_s, number in ((3.0, 1), (1.0, 2), (2.0, 3)):
        queue.admit(number, deadline_s)
    missed = [list(queue.deadlines.missed(now_s, [])) for now_s in (0.5, 2.0, 9.0, 9.0)]
    assert missed == [[], [(2, PASSED), (3, PASSED)], [(1, PASSED)], []]


def test_those_of_ended_requests_do_not_pile_up() -> None:
    queue = Queue()
    for number in range(1000):
        queue.deadlines.add(float(number), number, 0)
        queue.deadlines.tidy({number}, 1)
    assert len(list(queue.deadlines.missed(1e9, []))) <= 2 + 64 + 1


def test_whoever_waits_and_has_less_time_left_than_it_takes_is_told_at_once(lane: Lane) -> None:
    queue = Queue()
    for number in (1, 2):
        queue.begin(queue.admit(number, 1.5))
    queue.admit(3, 2.1)
    queue.admit(4, 9.0)
    queue.admit(5, math.inf)
    assert list(queue.deadlines.missed(1.0, [lane])) == []
    assert list(queue.deadlines.missed(1.2, [lane])) == [(3, HOPELESS)]


def test_what_has_begun_goes_on(lane: Lane) -> None:
    queue = Queue()
    for number in (1, 2, 3):
        queue.begin(queue.admit(number, 1.5))
    assert list(queue.deadlines.missed(1.4, [lane])) == []


def test_nobody_is_given_up_where_all_rows_fit_into_one_run(lane: Lane) -> None:
    """An idle engine lets in what its best time allows; its first run must not be kept from it."""
    queue = Queue()
    queue.admit(1, 0.5)
    queue.admit(2, 0.5, lane=8)
    queue.admit(3, 0.5, lane=8)
    assert list(queue.deadlines.missed(0.1, [lane])) == []


def test_the_queue_is_looked_at_a_few_times_a_second(lane: Lane) -> None:
    queue = Queue()
    for number in (1, 2, 3):
        queue.admit(number, 1.005)
    assert list(queue.deadlines.missed(0.0, [lane])) == []
    assert list(queue.deadlines.missed(TRIAGE_EVERY_S / 2, [lane])) == []
    assert list(queue.deadlines.missed(TRIAGE_EVERY_S, [lane])) != []


def test_nobody_is_given_up_who_has_time_once_others_are(lane: Lane) -> None:
    """Two leave; the third then has runs of its own, which are shorter."""
    queue = Queue()
    for number in (1, 2, 3):
        queue.admit(number, 1.005)
    assert list(queue.deadlines.missed(0.02, [lane])) == [(1, HOPELESS), (2, HOPELESS)]


def test_those_behind_the_head_of_the_line_are_left_alone(lane: Lane) -> None:
    queue = Queue()
    for number, due_s in ((1, 9.0), (2, 9.0), (3, 9.0), (4, 1.0)):
        task = queue.admit(number, due_s)
        queue.ledger.arrived[task] = float(number)
    for task in (0, 1):
        queue.begin(task)
    assert list(queue.deadlines.missed(0.5, [lane])) == []


def test_one_that_has_not_come_in_yet_is_left_alone(lane: Lane) -> None:
    """Admission writes into the ledger before the engine's thread hears of the request."""
    queue = Queue()
    for _ in range(3):
        queue.ledger.open(DEPTH, 1, 1.0, 0.0, 0, place=Place(7, DEPTH, 0.5))
    queue.deadlines.add(9.0, 9, 9)
    assert list(queue.deadlines.missed(0.1, [lane])) == []
