"""Who may enter: full queues and hopeless deadlines are refused at once, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from serving.engine.admission import Cost, admit, predicted_wait_s
from serving.engine.ledger import Ledger
from serving.errors import DeadlineExceeded, ResourceExhausted


def cost(seconds: float = 1.0, rows: int = 1, best_s: float | None = None) -> Cost:
    return Cost(rows, rows, seconds, seconds if best_s is None else best_s, seconds)


def loaded(*seconds: float) -> Ledger:
    ledger = Ledger()
    for each in seconds:
        ledger.open(100, 1, each, 0.0, 0)
    return ledger


def test_an_idle_engine_admits_what_its_best_time_allows_whatever_the_estimate_says() -> None:
    admit(cost(seconds=100.0, best_s=0.5), 1.0, Ledger(), 0, 10)


def test_what_cannot_finish_even_at_the_best_is_infeasible() -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        admit(cost(2.0), 1.0, loaded(5.0), 1, 10)
    assert caught.value.reason == "DEADLINE_INFEASIBLE"
    assert float(caught.value.metadata["predicted_seconds"]) == 2.0


def test_what_cannot_finish_because_of_others_may_come_back() -> None:
    with pytest.raises(ResourceExhausted) as caught:
        admit(cost(1.0), 1.5, loaded(5.0), 1, 10)
    assert caught.value.retry_after_s == pytest.approx(0.5)


def test_without_a_deadline_only_the_queue_refuses() -> None:
    admit(cost(1e9), None, loaded(1e9), 9, 10)
    with pytest.raises(ResourceExhausted, match="10 rows of 10") as caught:
        admit(cost(), None, loaded(1.0), 10, 10)
    assert caught.value.reason == "QUEUE_FULL"
    assert caught.value.retry_after_s == pytest.approx(1.0)


def test_a_request_waits_for_shorter_ones_whole_and_for_longer_ones_as_long_as_itself() -> None:
    assert predicted_wait_s(cost(2.0), loaded(0.5, 100.0)) == pytest.approx(2.5)


def test_work_that_is_done_is_not_waited_for() -> None:
    ledger = loaded(4.0)
    ledger.charge(np.array([ledger.open(1, 1, 0.0, 0.0, 0)]), np.array([1]), 0.1, 1.0)
    first = int(np.argmax(ledger.seconds))
    ledger.charge(np.array([first]), np.array([75]), 3.0, 3.0)
    assert predicted_wait_s(cost(9.0), ledger) == pytest.approx(1.0)
