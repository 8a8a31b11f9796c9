"""What the engine reports: every run, every step, every gap between two steps of a row, every ending."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from serving.engine.engine import Engine
from serving.engine.messages import Finished, Options
from serving.engine.observer import Ended, Report, Runs
from serving.engine.pace import Pace
from serving.errors import Cancelled, DeadlineExceeded, Internal
from tests.serving.engine.remote_toy import wait_for
from tests.serving.engine.toy import KEY, Fault, Toy, sample, score, toy

WAIT_S = 20.0


class Kept:
    def __init__(self) -> None:
        self.reports: list[Report] = []

    def report(self, report: Report) -> None:
        self.reports.append(report)

    @property
    def runs(self) -> list[Runs]:
        return [runs for report in self.reports for runs in report.runs]

    @property
    def ended(self) -> list[Ended]:
        return [ended for report in self.reports for ended in report.ended]


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def served(kept: Kept) -> Iterator[Toy]:
    made = toy(engine=Engine(max_rows=8, metrics=kept), before=Fault(trigger=77.0, delay_s=0.002))
    made.engine.start()
    yield made
    made.engine.stop()


def test_rows_that_step_together_have_one_gap() -> None:
    pace, slots = Pace(8), np.array([1, 2, 5])
    pace.begin(slots)
    first = pace.step(slots, 10.0)
    assert isinstance(first, np.ndarray)
    assert np.isnan(first).all()
    assert pace.step(slots, 10.5) == 0.5
    assert pace.step(slots, 11.5) == 1.0


def test_a_gap_is_the_rows_own_whoever_it_steps_with() -> None:
    pace, three, two = Pace(8), np.array([1, 2, 5]), np.array([1, 2])
    pace.begin(three)
    pace.step(three, 10.0)
    pace.step(three, 11.0)
    np.testing.assert_array_equal(pace.step(two, 12.0), [1.0, 1.0])
    np.testing.assert_array_equal(pace.step(np.array([1, 2, 5]), 15.0), [3.0, 3.0, 4.0])


def test_a_new_row_has_no_gap_to_the_one_before_it() -> None:
    pace, both, one = Pace(8), np.array([0, 1]), np.array([1])
    pace.begin(both)
    pace.step(both, 1.0)
    pace.begin(one)
    np.testing.assert_array_equal(pace.step(np.array([0, 1]), 3.0), [2.0, np.nan])


def test_runs_steps_and_gaps_add_up(served: Toy, kept: Kept) -> None:
    tickets = [served.engine.submit(KEY, sample(rows, 30)) for rows in (2, 3)]
    tickets.append(served.engine.submit(KEY, score(4)))
    for ticket in tickets:
        ticket.result(WAIT_S)
    assert wait_for(lambda: len(kept.ended) == 3)
    assert sum(runs.rows.sum() for runs in kept.runs) == 5 * 30 + 4
    assert sum(runs.steps for runs in kept.runs) == 5 * 30
    assert sum(runs.gap_rows.sum() for runs in kept.runs) == 5 * 29  # a first step has no gap
    for runs in kept.runs:
        assert (runs.model, runs.family, runs.component, runs.phase) == ("toy", "toy", "net", "step")
        assert (runs.capacity, runs.padded_rows) == (8, 0)
        assert (runs.seconds >= 0.002).all()
        assert (runs.gaps_s >= 0.002).all()


def test_padding_is_what_a_run_of_fixed_rows_has_too_many(served: Toy, kept: Kept) -> None:
    served.network.fix_rows(8)
    served.engine.submit(KEY, sample(3, 5)).result(WAIT_S)
    assert wait_for(lambda: kept.ended)
    assert sum(runs.padded_rows for runs in kept.runs) == 5 * 5


def test_every_ending_has_its_reason_and_its_cost(served: Toy, kept: Kept) -> None:
    engine = served.engine
    engine.submit(KEY, sample(1, 5), Options(share="alice")).result(WAIT_S)
    left = engine.submit(KEY, sample(1, 900))
    time.sleep(0.05)
    left.cancel()
    with pytest.raises(Cancelled):
        left.result(WAIT_S)
    with pytest.raises(Internal):
        engine.submit(KEY, sample(1, 5, 77.0)).result(WAIT_S)
    assert wait_for(lambda: len(kept.ended) == 3)
    answered, cancelled, failed = kept.ended
    assert [ended.reason for ended in kept.ended] == ["", "CANCELLED", "INTERNAL"]
    assert (answered.model, answered.operation, answered.share) == ("toy", "sample", "alice")
    assert answered.usage.network_evaluations == 5
    assert answered.latency_s >= answered.usage.device_seconds >= 0.01
    assert cancelled.usage.device_seconds > 0.02
    assert failed.usage.queue_seconds >= 0.0


def test_a_request_knows_what_was_predicted_for_it(served: Toy, kept: Kept) -> None:
    for _ in range(2):  # the second one finds measured steps
        served.engine.submit(KEY, sample(2, 40)).result(WAIT_S)
    assert wait_for(lambda: len(kept.ended) == 2)
    assert 0.3 < kept.ended[1].latency_s / kept.ended[1].predicted_s < 3.0


@pytest.mark.parametrize("by_the_caller", [False, True])
def test_a_missed_deadline_counts_as_late_whoever_notices_first(
    served: Toy, kept: Kept, by_the_caller: bool
) -> None:
    ticket = served.engine.submit(KEY, sample(1, 900), Options(deadline_s=0.2))
    if by_the_caller:
        time.sleep(0.18)
        ticket.cancel()
    with pytest.raises(Cancelled if by_the_caller else DeadlineExceeded):
        ticket.result(WAIT_S)
    assert wait_for(lambda: kept.ended)
    assert kept.ended[0].reason == "DEADLINE_MISSED"


def test_one_that_never_ran_has_queued_all_the_time(kept: Kept) -> None:
    made = toy(engine=Engine(max_rows=8, metrics=kept), capacity=4, before=Fault(delay_s=0.002))
    made.engine.start()
    try:
        first = made.engine.submit(KEY, sample(4, 900))
        waiting = made.engine.submit(KEY, sample(1, 5))
        time.sleep(0.1)
        waiting.cancel()
        with pytest.raises(Cancelled):
            waiting.result(WAIT_S)
        first.cancel()
        assert wait_for(lambda: len(kept.ended) == 2)
    finally:
        made.engine.stop()
    assert kept.ended[0].usage.queue_seconds >= 0.1
    assert kept.ended[0].usage.network_evaluations == 0


def test_an_idle_engine_reports_soon_and_then_keeps_quiet(served: Toy, kept: Kept) -> None:
    served.engine.submit(KEY, sample(1, 3)).result(WAIT_S)
    assert wait_for(lambda: kept.ended, timeout_s=0.2)
    time.sleep(0.3)
    told = len(kept.reports)
    time.sleep(0.6)
    assert len(kept.reports) - told <= 4
    assert (kept.reports[-1].rows_queued, kept.reports[-1].rows_active) == (0, 0)
    assert not kept.reports[-1].runs


def test_a_traced_request_learns_its_stages_and_an_untraced_one_pays_nothing(served: Toy) -> None:
    beside = served.engine.submit(KEY, sample(3, 40))
    traced = served.engine.submit(KEY, sample(2, 20), Options(traced=True))
    finished = traced.finished(WAIT_S)
    assert isinstance(finished, Finished)
    (stage,) = finished.stages
    assert (stage.component, stage.phase) == ("net", "steps")
    assert (stage.runs, stage.rows) == (20, 40)
    assert stage.batch_rows >= 20 * 2
    assert stage.ended_s - stage.begun_s >= stage.seconds * 0.9 > 0.03
    assert beside.finished(WAIT_S).stages == ()
    call = served.engine.submit(KEY, score(2), Options(traced=True)).finished(WAIT_S)
    assert [(stage.phase, stage.runs) for stage in call.stages] == [("network", 1)]
