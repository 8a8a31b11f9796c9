"""Who may enter: full queues and hopeless deadlines are refused at once, and nothing else is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from serving.engine.admission import Cost, admit, outlook
from serving.engine.estimate import LEAST_MARGIN
from serving.engine.forecast import Pace
from serving.engine.ledger import Ledger, Place
from serving.errors import DeadlineExceeded, ResourceExhausted

RUN_S = 0.01
PACE = Pace(capacity=2, base_s=RUN_S, per_row_s=0.0)  # two rows a run


def cost(seconds: float = 1.0, rows: int = 1, best_s: float | None = None, lane: int = 0) -> Cost:
    """``rows`` rows that take ``seconds`` alone."""
    depth = max(1, round(seconds / RUN_S))
    alone_s = seconds if best_s is None else best_s
    return Cost(rows, rows * depth, seconds, alone_s, rows * seconds / 2, lane, depth, PACE)


def loaded(*seconds: float, due_s: float = math.inf, lane: int = 0) -> Ledger:
    """A ledger with tasks of one row each."""
    ledger = Ledger()
    for each in seconds:
        open_in(ledger, each, due_s, lane)
    return ledger


def open_in(ledger: Ledger, seconds: float, due_s: float = math.inf, lane: int = 0) -> int:
    depth = round(seconds / RUN_S)
    return ledger.open(depth, 1, seconds / 2, 0.0, 0, place=Place(lane, depth, due_s))


def enter(cost: Cost, deadline_s: float | None, ledger: Ledger, limit_rows: int = 10) -> None:
    admit(cost, deadline_s, ledger, limit_rows, 0.0)


def test_an_idle_engine_admits_what_its_best_time_allows_whatever_the_estimate_says() -> None:
    enter(cost(seconds=100.0, best_s=0.5), 1.0, Ledger())


def test_what_cannot_finish_even_at_the_best_is_infeasible() -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        enter(cost(2.0), 1.0, loaded(5.0))
    assert caught.value.reason == "DEADLINE_INFEASIBLE"
    assert float(caught.value.metadata["predicted_seconds"]) == 2.0


def test_what_cannot_finish_because_of_others_may_come_back() -> None:
    with pytest.raises(ResourceExhausted) as caught:
        enter(cost(2.0), 2.5, loaded(1.0, 1.0))
    assert caught.value.reason == "QUEUE_FULL"
    assert caught.value.retry_after_s == pytest.approx(3.0 * LEAST_MARGIN - 2.5)


def test_without_a_deadline_only_the_queue_refuses() -> None:
    ledger = loaded(*[1e3] * 9)
    enter(cost(1e3), None, ledger)
    open_in(ledger, 1.0)
    with pytest.raises(ResourceExhausted, match="10 rows of 10") as caught:
        enter(cost(), None, ledger)
    assert caught.value.reason == "QUEUE_FULL"
    assert caught.value.retry_after_s


def test_rows_that_fit_into_one_run_do_not_wait_for_one_another() -> None:
    assert outlook(cost(2.0), loaded(100.0), 0.0).done_s == pytest.approx(2.0 * LEAST_MARGIN)


def test_a_request_waits_for_shorter_ones_and_not_for_longer_ones() -> None:
    assert outlook(cost(2.0), loaded(0.5, 0.5, 100.0), 0.0).done_s == pytest.approx(2.5 * LEAST_MARGIN)


def test_a_newcomer_that_would_make_an_admitted_request_late_is_refused() -> None:
    ledger = loaded(1.0, 1.0, due_s=1.2)
    with pytest.raises(ResourceExhausted, match="late"):
        enter(cost(0.5), None, ledger)
    enter(cost(0.05), None, ledger)  # 1.05 s, and the margin, are in time
    enter(cost(5.0), None, ledger)  # goes last


def test_who_is_in_time_without_a_margin_is_not_delayed_but_need_not_be_waited_for() -> None:
    ledger = loaded(1.0)
    open_in(ledger, 2.0, due_s=2.05)  # done after 2.0 s; after 2.1 with a margin
    with pytest.raises(ResourceExhausted, match="late"):
        enter(cost(0.5), None, ledger)
    enter(cost(10.0), None, ledger)  # runs after it


def test_who_is_late_already_keeps_nobody_out() -> None:
    enter(cost(0.5), None, loaded(1.0, 1.0, due_s=0.9))


def test_work_that_is_done_is_not_waited_for() -> None:
    ledger = loaded(4.0, 4.0)
    tasks = np.flatnonzero(ledger.lane == 0)
    ledger.charge(tasks, np.full(2, 300), 3.0, 3.0)
    assert outlook(cost(9.0), ledger, 0.0).done_s == pytest.approx((1.0 + 9.0) * LEAST_MARGIN, rel=0.01)


def test_another_lane_takes_turns_until_its_work_is_done() -> None:
    assert outlook(cost(2.0), loaded(100.0, lane=1), 0.0).done_s == pytest.approx(4.0 * LEAST_MARGIN)
    assert outlook(cost(2.0), loaded(1.0, lane=1), 0.0).done_s == pytest.approx(2.0 * LEAST_MARGIN + 0.5)


def test_a_small_request_beside_large_ones_takes_as_long_as_full_runs() -> None:
    """Its rows share runs with theirs, and longer runs are what it waits for."""
    pace = Pace(capacity=64, base_s=0.001, per_row_s=0.0002)
    ledger = Ledger()
    for _ in range(2):
        ledger.open(64 * 50, 64, 0.7, 0.0, 0, place=Place(0, 50, math.inf))
    small = Cost(2, 2 * 20, 20 * 0.0014, 0.0, 2 * 20 * 0.0002, 0, 20, pace)
    predicted_s = admit(small, None, ledger, 1000, 0.0)
    assert predicted_s == pytest.approx(20 * pace.run_s(64))
    assert admit(small, None, Ledger(), 1000, 0.0) == small.alone_s
    ledger = Ledger()
    ledger.open(4 * 5, 4, 0.001, 0.0, 0, place=Place(0, 5, math.inf))
    assert admit(small, None, ledger, 1000, 0.0) == pytest.approx(small.alone_s + 5 * 4 * 0.0002)
