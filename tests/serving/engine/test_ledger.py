"""What requests still cost: order, shares of runs, and books that agree while everybody writes."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from serving.engine.ledger import AGING, Ledger


def array(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_least_remaining_work_goes_first() -> None:
    ledger = Ledger()
    long, short = ledger.open(100, 1, 10.0, 0.0, 0), ledger.open(100, 1, 1.0, 0.0, 0)
    keys = ledger.keys(array(long, short), 0.0)
    assert keys[1] < keys[0]
    ledger.charge(array(long), array(95), 1.0, 1.0)
    keys = ledger.keys(array(long, short), 0.0)
    assert keys[0] < keys[1]  # half a second is left of it


def test_waiting_wins_in_the_end_so_that_nothing_starves() -> None:
    ledger = Ledger()
    long = ledger.open(100, 1, 10.0, 0.0, 0)
    newcomer = ledger.open(100, 1, 1.0, 9.0 / AGING + 1.0, 0)
    keys = ledger.keys(array(long, newcomer), 9.0 / AGING + 1.0)
    assert keys[0] < keys[1]


def test_priority_goes_before_any_amount_of_work() -> None:
    ledger = Ledger()
    urgent, short = ledger.open(100, 1, 1000.0, 5.0, 1), ledger.open(1, 1, 0.001, 0.0, 0)
    keys = ledger.keys(array(urgent, short), 100.0)
    assert keys[0] < keys[1]


def test_a_run_is_shared_by_network_rows_even_where_a_task_stands_twice() -> None:
    ledger = Ledger()
    a, b = ledger.open(10, 1, 1.0, 0.0, 0), ledger.open(10, 1, 1.0, 0.5, 0)
    ledger.charge(array(a, b, a), array(1, 1, 2), 0.4, 2.0)
    assert ledger.usage(a, 20.0).network_evaluations == 3
    assert ledger.usage(a, 20.0).device_seconds == pytest.approx(0.3)
    assert ledger.usage(b, 20.0).device_seconds == pytest.approx(0.1)
    assert ledger.usage(b, 20.0).queue_seconds == pytest.approx(1.1)  # until its first run began


def test_queue_time_runs_until_the_first_run() -> None:
    ledger = Ledger()
    task = ledger.open(10, 4, 1.0, 10.0, 0)
    assert ledger.usage(task, 10.5).queue_seconds == 0.5
    assert ledger.queued_and_active_rows() == (4, 0)
    for now_s in (12.0, 15.0):
        ledger.charge(array(task), array(1), 1.0, now_s)
    assert ledger.usage(task, 20.0).queue_seconds == pytest.approx(1.0)
    assert ledger.queued_and_active_rows() == (0, 4)


def test_indices_are_reused_clean() -> None:
    ledger = Ledger(1)
    task = ledger.open(10, 2, 5.0, 0.0, 3)
    ledger.charge(array(task), array(5), 1.0, 1.0)
    ledger.close(task)
    assert (ledger.backlog_s(), ledger.open_rows, ledger.open_tasks) == (0.0, 0, 0)
    again = ledger.open(4, 1, 2.0, 7.0, 0)
    assert again == task
    assert ledger.usage(again, 8.0).network_evaluations == 0
    assert ledger.usage(again, 8.0).device_seconds == 0.0
    assert ledger.backlog_s() == 2.0


def test_growing_keeps_what_is_open() -> None:
    ledger = Ledger(2)
    tasks = [ledger.open(10, 1, float(index), 0.0, 0) for index in range(9)]
    assert len(set(tasks)) == 9
    np.testing.assert_array_equal(ledger.remaining_s(array(*tasks)), np.arange(9.0))
    assert ledger.queued_and_active_rows() == (9, 0)


def test_growing_loses_nothing_that_the_worker_writes_meanwhile() -> None:
    ledger = Ledger(1)
    task = ledger.open(10**9, 1, 1.0, 0.0, 0)
    stop = threading.Event()
    charged = 0

    def grow() -> None:
        for _ in range(3000):
            ledger.open(1, 1, 1.0, 0.0, 0)
        stop.set()

    thread = threading.Thread(target=grow)
    thread.start()
    while not stop.is_set():
        ledger.charge(array(task), array(1), 0.001, 1.0)
        ledger.backlog_s()
        ledger.queued_and_active_rows()
        charged += 1
    thread.join()
    assert ledger.usage(task, 20.0).network_evaluations == charged
    assert ledger.open_tasks == ledger.open_rows == 3001


def test_the_share_that_had_less_device_time_goes_first() -> None:
    ledger = Ledger(4)
    greedy = ledger.open(100, 1, 10.0, 0.0, 0, "greedy")
    modest = ledger.open(100, 1, 90.0, 0.0, 0, "modest")
    tasks, rows = np.array([greedy]), np.array([10])
    ledger.charge(tasks, rows, 2.0, 2.0)
    both = np.array([greedy, modest])
    assert np.argmin(ledger.keys(both, 2.0)) == 1
    ledger.charge(np.array([modest]), np.array([10]), 5.0, 7.0)
    assert np.argmin(ledger.keys(both, 7.0)) == 0


def test_an_idle_share_saves_no_credit() -> None:
    ledger = Ledger(4)
    early = ledger.open(100, 1, 10.0, 0.0, 0, "early")
    ledger.charge(np.array([early]), np.array([10]), 50.0, 50.0)
    late = ledger.open(100, 1, 20.0, 50.0, 0, "late")
    keys = ledger.keys(np.array([early, late]), 50.0)
    assert keys[1] - keys[0] < 100.0  # work alone decides, not fifty seconds of credit
