"""An engine in a process of its own keeps every promise, and its death is nobody's hang."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.engine.messages import Advanced, Finished, ModelKey, Options, Previewed, RowFinal
from serving.engine.observer import Ended, Report
from serving.engine.process import ProcessEngine
from serving.errors import Cancelled, DeadlineExceeded, Internal, NotFound, ResourceExhausted, Unavailable
from serving.families.result import Sampled
from tests.serving.engine.remote_toy import BROKEN, KEY, UNPICKLABLE, setup, wait_for
from tests.serving.engine.toy import answer, sample, score

WAIT_S = 20.0
PACKAGE: Any = Path("toy")


class Watching:
    def __init__(self) -> None:
        self.ticks = 0
        self.ended: list[Ended] = []
        self.rows = (-1, -1)
        self.backlog_s = -1.0

    def report(self, report: Report) -> None:
        self.ticks += sum(len(runs.seconds) for runs in report.runs)
        self.ended += report.ended
        self.rows, self.backlog_s = (report.rows_queued, report.rows_active), report.backlog_s


def started(watching: Watching | None = None) -> ProcessEngine:
    engine = ProcessEngine(metrics=watching, setup=setup, max_rows=8, queue_rows=40)
    engine.start()
    engine.load(KEY, PACKAGE)
    return engine


@pytest.fixture(scope="module")
def watching() -> Watching:
    return Watching()


@pytest.fixture(scope="module")
def engine(watching: Watching) -> Iterator[ProcessEngine]:
    it = started(watching)
    yield it
    it.stop()
    assert not it.alive


def idle(engine: ProcessEngine, watching: Watching) -> bool:
    """Nothing is left on either side."""
    return wait_for(lambda: watching.rows == (0, 0) and not engine._tickets and not engine._calls)


def test_answers_are_those_of_an_engine_in_this_process(engine: ProcessEngine, watching: Watching) -> None:
    requests = [sample(1 + i % 3, 3 + 5 * (i % 4), i / 10) for i in range(8)]
    tickets = [engine.submit(KEY, request) for request in requests]
    for request, ticket in zip(requests, tickets, strict=True):
        result = ticket.result(WAIT_S)
        assert isinstance(result, Sampled)
        np.testing.assert_array_equal(result.data, answer(request))
    np.testing.assert_array_equal(engine.submit(KEY, score(3)).result(WAIT_S).log_prob, answer(score(3)))  # type: ignore[union-attr]
    assert idle(engine, watching)
    assert wait_for(lambda: len(watching.ended) >= 9)
    assert watching.ticks


def test_streams_cross_the_border(engine: ProcessEngine) -> None:
    events = list(engine.submit(KEY, sample(2, 40), Options(stream=True, preview_every_steps=2)))
    assert isinstance(events[0], Advanced)
    assert any(isinstance(event, Previewed) for event in events)
    assert sorted(event.row for event in events if isinstance(event, RowFinal)) == [0, 1]
    assert isinstance(events[-1], Finished)


def test_cancelling_frees_the_rows_and_spares_the_neighbours(
    engine: ProcessEngine, watching: Watching
) -> None:
    victim, neighbour = engine.submit(KEY, sample(2, 900)), sample(2, 60, 0.4)
    ticket = engine.submit(KEY, neighbour)
    time.sleep(0.05)
    victim.cancel()
    with pytest.raises(Cancelled):
        victim.result(WAIT_S)
    np.testing.assert_array_equal(ticket.result(WAIT_S).data, answer(neighbour))  # type: ignore[union-attr]
    assert idle(engine, watching)


def test_refusals_and_failures_arrive_with_their_reasons(engine: ProcessEngine, watching: Watching) -> None:
    with pytest.raises(ResourceExhausted) as full:
        engine.submit(KEY, sample(41)).result(WAIT_S)
    assert full.value.retry_after_s
    with pytest.raises(DeadlineExceeded):
        engine.submit(KEY, sample(1, 900), Options(deadline_s=0.05)).result(WAIT_S)
    with pytest.raises(NotFound):
        engine.submit(ModelKey("nobody", 1), sample()).result(WAIT_S)
    with pytest.raises(Internal) as failed:
        engine.submit(KEY, sample(1, 5, 77.0)).result(WAIT_S)
    assert failed.value.metadata["error_id"]
    assert idle(engine, watching)


@pytest.mark.parametrize("seed", [UNPICKLABLE, BROKEN])
def test_what_cannot_cross_the_border_fails_alone(engine: ProcessEngine, seed: int) -> None:
    with pytest.raises(Internal):
        engine.submit(KEY, sample(1, 3, seed=seed)).result(WAIT_S)
    assert engine.submit(KEY, sample()).result(WAIT_S)


def test_errors_of_loading_come_back_even_if_they_cannot_be_pickled(engine: ProcessEngine) -> None:
    package: Any = Path("broken")
    with pytest.raises(RuntimeError, match="no such toy"):
        engine.load(ModelKey("other", 1), package)
    assert engine.alive


def test_models_are_quoted_and_unloaded(engine: ProcessEngine) -> None:
    key, heard = ModelKey("second", 1), threading.Event()
    engine.load(key, PACKAGE, warming=heard.set)
    assert heard.is_set()
    assert engine.quote(key, sample(2, 7)).network_rows == {"net": 14}
    assert engine.submit(key, sample()).result(WAIT_S)
    engine.unload(key)
    with pytest.raises(NotFound):
        engine.submit(key, sample()).result(WAIT_S)
    with pytest.raises(NotFound):
        engine.quote(key, sample())


def test_signals_for_the_whole_group_do_not_end_it(engine: ProcessEngine) -> None:
    assert engine.pid is not None
    for sign in (signal.SIGINT, signal.SIGTERM):
        os.kill(engine.pid, sign)
    assert engine.submit(KEY, sample()).result(WAIT_S)


def test_a_killed_child_fails_what_is_in_flight_and_refuses_the_rest() -> None:
    engine = started()
    tickets = [engine.submit(KEY, sample(2, 900)) for _ in range(3)]
    time.sleep(0.05)
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    begun = time.monotonic()
    for ticket in tickets:
        with pytest.raises(Unavailable) as caught:
            ticket.result(WAIT_S)
        assert caught.value.reason == "DEVICE_LOST"
    assert time.monotonic() - begun < 2.0
    assert not engine.alive
    with pytest.raises(Unavailable):
        engine.submit(KEY, sample())
    with pytest.raises(Unavailable):
        engine.quote(KEY, sample())
    engine.stop()


def test_stopping_lets_work_finish_within_the_grace_and_fails_the_rest() -> None:
    engine = started()
    short, long = engine.submit(KEY, sample(1, 20)), engine.submit(KEY, sample(1, 1_000_000))
    engine.stop(grace_s=2.0)
    assert isinstance(short.result(WAIT_S), Sampled)
    with pytest.raises(Unavailable) as caught:
        long.result(WAIT_S)
    assert caught.value.reason == "DRAINING"
    assert not engine.alive
