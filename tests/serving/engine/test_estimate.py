"""The running estimate of a run's duration: fits a line, follows changes, keeps its best."""

from __future__ import annotations

import pytest

from serving.engine.estimate import BLOCK_RUNS, LEAST_MARGIN, MOST_MARGIN, StepTime


def observed(base: float, per_row: float, times: int = 20) -> StepTime:
    step_time = StepTime()
    for index in range(times):
        rows = (1, 4, 16, 64)[index % 4]
        step_time.observe(rows, base + per_row * rows)
    return step_time


def test_nothing_measured_promises_nothing() -> None:
    step_time = StepTime()
    assert not step_time.measured
    assert step_time.seconds(64) == step_time.best_seconds(64) == 0.0


@pytest.mark.parametrize(("base", "per_row"), [(0.01, 0.0), (0.0, 0.001), (0.005, 0.0005)])
def test_a_line_is_found(base: float, per_row: float) -> None:
    found = observed(base, per_row)
    assert found.coefficients() == pytest.approx((base, per_row), abs=1e-9)
    assert found.seconds(32) == pytest.approx(base + 32 * per_row)


def test_one_row_count_alone_is_proportional() -> None:
    step_time = StepTime()
    for _ in range(5):
        step_time.observe(8, 0.08)
    assert step_time.coefficients() == pytest.approx((0.0, 0.01))


def test_noise_never_makes_a_coefficient_negative() -> None:
    step_time = StepTime()
    for rows, seconds in ((1, 0.5), (64, 0.1), (2, 0.4), (32, 0.1)):
        step_time.observe(rows, seconds)
    base, per_row = step_time.coefficients()
    assert base >= 0.0
    assert per_row >= 0.0


def test_a_slow_tick_fades() -> None:
    step_time = observed(0.0, 0.001)
    step_time.observe(8, 60.0)
    after_once = step_time.seconds(8)
    for _ in range(400):
        step_time.observe(8, 0.008)
    assert step_time.seconds(8) < 0.02 * after_once


def test_the_best_survives_slow_ticks_and_never_needs_more_rows_than_it_had() -> None:
    step_time = observed(0.01, 0.001)
    step_time.observe(16, 60.0)
    assert step_time.best_seconds(16) == pytest.approx(0.026, rel=0.1)
    assert step_time.best_seconds(1) <= step_time.best_seconds(16)
    assert step_time.best_seconds(1000) == 0.0


def test_a_machine_that_became_slower_is_believed_in_the_end() -> None:
    step_time = StepTime()
    step_time.observe(1, 0.01)
    for _ in range(2000):
        step_time.observe(1, 0.04)
    assert step_time.best_seconds(1) == pytest.approx(0.04, rel=0.01)


def steady(step_time: StepTime, seconds: float, runs: int = 10 * BLOCK_RUNS) -> StepTime:
    for _ in range(runs):
        step_time.observe(8, seconds)
    return step_time


def test_runs_that_take_what_was_expected_have_the_least_margin() -> None:
    assert StepTime().margin == LEAST_MARGIN
    assert steady(StepTime(), 0.01).margin == pytest.approx(LEAST_MARGIN)


def test_the_margin_grows_with_what_predictions_were_off_and_falls_again() -> None:
    step_time, margins = StepTime(), []
    for block in range(20):
        steady(step_time, 0.01 if block % 4 < 2 else 0.02, 2 * BLOCK_RUNS)
        margins.append(step_time.margin)
    assert LEAST_MARGIN < margins[-1] <= MOST_MARGIN
    steady(step_time, 0.01, 40 * BLOCK_RUNS)
    assert step_time.margin == pytest.approx(LEAST_MARGIN)


def test_the_margin_is_bounded_however_long_a_run_hung() -> None:
    step_time = steady(StepTime(), 0.01)
    for _ in range(40):
        step_time.observe(8, 60.0)
        steady(step_time, 0.01, BLOCK_RUNS - 1)
    assert step_time.margin == MOST_MARGIN
