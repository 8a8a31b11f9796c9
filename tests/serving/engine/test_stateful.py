"""Random histories against a simple model: whatever happens, every request ends once, and rightly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving.engine.engine import Engine
from serving.engine.messages import Event, Failed, Finished, ModelKey, Options, RowFinal
from serving.engine.ticket import Ticket
from serving.errors import ServingError
from serving.families.request import Operation, Request
from serving.families.result import Sampled, Scored
from tests.serving.engine.toy import Toy, answer, sample, score, steps_of, toy

TRIGGER = 77.0  # a network run that meets it raises
RUN_S = 0.01
KEYS = (ModelKey("first", 1), ModelKey("second", 1))
ANSWER, INTERNAL = "answer", "INTERNAL"


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Asked:
    key: ModelKey
    request: Request
    ticket: Ticket
    deadline_s: float | None
    expected: str  # how it ends, if nothing else happens
    events: list[Event]

    @property
    def undecided(self) -> bool:
        return not self.ticket._closed and self.expected in (ANSWER, INTERNAL)


class Life(RuleBasedStateMachine):
    @initialize(queue_rows=st.sampled_from((20, 10_000)))
    def open(self, queue_rows: int) -> None:
        self.clock = Clock()
        self.most_rows = 8
        self.engine = Engine(max_rows=8, queue_rows=queue_rows, clock=self.clock)
        self.worker = self.engine._worker
        self.toys: dict[ModelKey, list[Toy]] = {key: [self.made(key)] for key in KEYS}
        self.asked: list[Asked] = []
        self.begun = 0

    def made(self, key: ModelKey) -> Toy:
        return toy(key=key, engine=self.engine, capacity=16, before=self.run_network)

    def run_network(self, x: torch.Tensor) -> None:
        self.clock.now_s += RUN_S
        if len(x) > self.most_rows:
            raise RuntimeError("out of memory")
        if bool((x[:, 0] == TRIGGER).any()):
            raise RuntimeError("injected fault")

    @rule(
        key=st.sampled_from(KEYS),
        rows=st.integers(1, 12),
        steps=st.integers(1, 9),
        fault=st.sampled_from((None, None, None, TRIGGER, np.nan)),
        scores=st.booleans(),
        deadline_s=st.one_of(st.none(), st.floats(0.01, 0.3)),
        stream=st.booleans(),
        priority=st.integers(0, 1),
    )
    def submit(
        self,
        key: ModelKey,
        rows: int,
        steps: int,
        fault: float | None,
        scores: bool,
        deadline_s: float | None,
        stream: bool,
        priority: int,
    ) -> None:
        start = len(self.asked) / 8
        request = score(rows, start) if scores else sample(rows, steps, start, seed=len(self.asked))
        if fault is not None and request.data is not None:
            request.data[rows // 2, 0] = fault
        options = Options(
            deadline_s=deadline_s, stream=stream, priority=priority, preview_every_steps=2 * stream
        )
        full = self.engine._ledger.open_rows + rows > self.engine._queue_rows
        due = deadline_s is not None or any(a.undecided and a.deadline_s is not None for a in self.asked)
        try:
            ticket = self.engine.submit(key, request, options)
        except ServingError as refusal:
            check_refusal(refusal, full, due, deadline_s)
            return
        assert not full
        until_s = None if deadline_s is None else self.clock.now_s + deadline_s
        expected = ANSWER if fault is None else INTERNAL
        self.asked.append(Asked(key, request, ticket, until_s, expected, []))

    @rule(count=st.integers(1, 6))
    def tick(self, count: int) -> None:
        for _ in range(count):
            self.step()

    def step(self) -> None:
        for asked in self.asked:
            if asked.undecided and asked.deadline_s is not None and asked.deadline_s <= self.clock.now_s:
                asked.expected = "DEADLINE_MISSED"
        with torch.inference_mode():
            self.worker._between_ticks()
            lane = self.worker._turns.choose(self.worker._lanes)
            if lane is not None:
                self.worker._tick(lane)

    @precondition(lambda self: self.asked)
    @rule(choice=st.integers(0, 1000))
    def cancel(self, choice: int) -> None:
        asked = self.asked[choice % len(self.asked)]
        if asked.undecided:
            asked.expected = "CANCELLED"
        asked.ticket.cancel()

    @rule(seconds=st.floats(0.01, 8.0))
    def expire(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @rule(most=st.integers(1, 8))
    def exhaust_memory(self, most: int) -> None:
        """Larger runs fail from now on; no request may suffer."""
        self.most_rows = most

    @rule(key=st.sampled_from(KEYS))
    def unload_and_load_again(self, key: ModelKey) -> None:
        self.engine._models.pop(key)
        self.engine._inbox.put(lambda: self.worker.detach(key))
        for asked in self.asked:
            if asked.key == key and asked.undecided:
                asked.expected = "UNLOADING"
        self.step()
        self.toys[key].append(self.made(key))

    @precondition(lambda self: self.asked)
    @rule(choice=st.integers(0, 1000))
    def read(self, choice: int) -> None:
        asked = self.asked[choice % len(self.asked)]
        asked.events += asked.ticket._take()

    @invariant()
    def slow_readers_hold_little(self) -> None:
        for asked in self.asked:
            assert len(asked.ticket._events) <= 2 * asked.request.rows + 2

    @invariant()
    def the_books_agree(self) -> None:
        ledger, open_asked = self.engine._ledger, [a for a in self.asked if not a.ticket._closed]
        assert ledger.open_tasks == len(open_asked)
        assert ledger.open_rows == sum(a.request.rows for a in open_asked)
        assert (ledger.done <= ledger.total).all()
        assert sum(ledger.queued_and_active_rows()) == ledger.open_rows
        for it in (it for made in self.toys.values() for it in made):
            for residents, _ in it.lane._tables:
                assert residents.active == residents.alive.sum()
                assert (residents.owner[residents.alive] >= 0).all()
                assert set(residents.by_task) <= set(self.worker._tasks)

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        self.most_rows = 8
        bound = sum(a.request.rows * steps_of(a.request) for a in self.asked) + 2
        for _ in range(bound):
            self.step()
        for asked in self.asked:
            asked.events += asked.ticket._take()
            check_end(asked)
        self.check_nothing_is_left()

    def check_nothing_is_left(self) -> None:
        worker, ledger = self.worker, self.engine._ledger
        assert not worker._tasks
        assert not worker._by_number
        assert not worker._streams._tasks
        assert ledger.open_rows == ledger.open_tasks == 0
        assert ledger.backlog_s() == 0.0
        for it in (it for made in self.toys.values() for it in made):
            assert not it.lane._calls
            assert not it.lane.busy()
            for residents, _ in it.lane._tables:
                assert (residents.owner == -1).all()
                assert not residents._waiting
                assert not residents.by_task


def check_refusal(refusal: ServingError, full: bool, due: bool, deadline_s: float | None) -> None:
    """``due``: it, or a request that was admitted before, has a deadline."""
    if refusal.reason == "QUEUE_FULL":
        assert refusal.retry_after_s
        assert full or due
    else:
        assert refusal.reason == "DEADLINE_INFEASIBLE"
        assert deadline_s is not None


def check_end(asked: Asked) -> None:
    *before, last = asked.events
    assert not any(isinstance(event, Finished | Failed) for event in before)
    if told_in_time(asked, last):
        return
    if asked.expected == ANSWER:
        assert isinstance(last, Finished), last
        assert last.usage.network_evaluations == asked.request.rows * steps_of(asked.request)
        np.testing.assert_array_equal(rows_of(last), answer(asked.request))
        check_rows(asked, rows_of(last))
    else:
        assert isinstance(last, Failed), (asked.expected, last)
        assert last.error.reason == asked.expected


def told_in_time(asked: Asked, last: Event) -> bool:
    """Whether a request that could not have been done by its deadline any more was ended before it ran."""
    if asked.deadline_s is None or not isinstance(last, Failed) or last.usage is None:
        return False
    return last.error.reason == "DEADLINE_MISSED" and last.usage.network_evaluations == 0


def check_rows(asked: Asked, data: np.ndarray) -> None:
    """Rows of a stream: each once, and what the answer says."""
    finals = [event for event in asked.events if isinstance(event, RowFinal)]
    for event in finals:
        np.testing.assert_array_equal(event.data, data[event.row])
    streamed = any(not isinstance(event, Finished) for event in asked.events)
    if streamed and asked.request.operation is Operation.SAMPLE:
        assert sorted(event.row for event in finals) == list(range(asked.request.rows))


def rows_of(finished: Finished) -> np.ndarray:
    result = finished.result
    assert isinstance(result, Sampled | Scored)
    return np.asarray(result.data if isinstance(result, Sampled) else result.log_prob)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True)
