"""The engine's promises, on a toy model: same answers in any company, and nothing is left behind."""

from __future__ import annotations

import asyncio
import pickle
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from serving.engine.messages import Advanced, Finished, ModelKey, Options, Previewed, RowFinal
from serving.errors import Cancelled, DeadlineExceeded, Internal, NotFound, ResourceExhausted, Unavailable
from serving.families.result import Sampled, Scored
from tests.serving.engine.toy import KEY, Fault, Toy, answer, sample, score, steps_of, toy

WAIT_S = 20.0


@pytest.fixture
def made() -> Iterator[Toy]:
    it = toy()
    it.engine.start()
    yield it
    it.engine.stop()


def nothing_left(it: Toy) -> bool:
    until = time.monotonic() + 5
    while time.monotonic() < until:
        owners = [residents.owner for residents, _ in it.lane._tables]
        if not it.engine._worker.open_tasks and not it.lane._calls and all((o == -1).all() for o in owners):
            return it.engine._ledger.open_rows == 0
        time.sleep(0.01)
    return False


def test_a_request_is_answered(made: Toy) -> None:
    request = sample(3, 5)
    result = made.engine.submit(KEY, request).result(WAIT_S)
    assert isinstance(result, Sampled)
    np.testing.assert_array_equal(result.data, answer(request))
    assert nothing_left(made)


def test_rows_of_different_requests_operations_and_steps_share_runs_and_keep_their_answers() -> None:
    it = toy(before=Fault(delay_s=0.002))
    requests = [sample(1 + i % 3, 3 + 5 * (i % 4), i / 10) for i in range(12)] + [
        score(5, 0.3),
        score(20, 0.1),
    ]
    tickets = [it.engine.submit(KEY, request) for request in requests]
    it.engine.start()
    for request, ticket in zip(requests, tickets, strict=True):
        result = ticket.result(WAIT_S)
        got = result.log_prob if isinstance(result, Scored) else result.data  # type: ignore[union-attr]
        np.testing.assert_array_equal(got, answer(request))
    work = sum(r.rows * steps_of(r) for r in requests)
    assert sum(it.network.runs) == work
    assert work / len(it.network.runs) > 0.8 * 8  # achieved batch: a knob that dies shows here
    assert nothing_left(it)
    it.engine.stop()


@pytest.mark.parametrize("victim", range(4))
def test_cancelling_one_of_a_batch_leaves_its_neighbours_bitwise_unchanged(victim: int) -> None:
    it = toy(before=Fault(delay_s=0.002))
    it.engine.start()
    requests = [sample(2, 40, i / 7) for i in range(4)]
    tickets = [it.engine.submit(KEY, request) for request in requests]
    time.sleep(0.02)
    tickets[victim].cancel()
    for index, (request, ticket) in enumerate(zip(requests, tickets, strict=True)):
        if index == victim:
            with pytest.raises(Cancelled):
                ticket.result(WAIT_S)
        else:
            np.testing.assert_array_equal(ticket.result(WAIT_S).data, answer(request))  # type: ignore[union-attr]
    assert nothing_left(it)
    assert len(it.family.closed) == 4
    it.engine.stop()


def test_a_raising_row_fails_alone_and_the_engine_goes_on() -> None:
    it = toy(before=Fault(trigger=77.0))
    guilty = sample(1, 5, 77.0)
    innocent = [sample(2, 5, i / 3) for i in range(3)] + [score(3, 0.2)]
    tickets = [it.engine.submit(KEY, request) for request in [*innocent, guilty]]
    it.engine.start()
    with pytest.raises(Internal) as caught:
        tickets[-1].result(WAIT_S)
    assert caught.value.metadata["error_id"]
    for request, ticket in zip(innocent, tickets, strict=False):
        result = ticket.result(WAIT_S)
        got = result.log_prob if isinstance(result, Scored) else result.data  # type: ignore[union-attr]
        np.testing.assert_array_equal(got, answer(request))
    assert nothing_left(it)
    it.engine.stop()


def test_a_non_finite_row_fails_alone_without_a_second_run() -> None:
    it = toy()
    bad = sample(1, 3)
    assert bad.data is not None
    bad.data[0, 1] = np.nan
    good = [sample(2, 3, 0.5), score(2)]
    tickets = [it.engine.submit(KEY, request) for request in [bad, *good]]
    it.engine.start()
    with pytest.raises(Internal, match="NaN"):
        tickets[0].result(WAIT_S)
    np.testing.assert_array_equal(tickets[1].result(WAIT_S).data, answer(good[0]))  # type: ignore[union-attr]
    tickets[2].result(WAIT_S)
    assert len(it.network.runs) == 3
    assert nothing_left(it)
    it.engine.stop()


def test_a_program_that_raises_fails_its_own_request_only(made: Toy) -> None:
    broken = sample(2, 3)
    object.__setattr__(broken, "parameters", {"steps": "three"})
    with pytest.raises(ValueError, match="three"):
        made.engine.submit(KEY, broken)
    assert made.engine.submit(KEY, sample()).result(WAIT_S)


def test_unknown_models_are_not_found(made: Toy) -> None:
    with pytest.raises(NotFound):
        made.engine.submit(ModelKey("nobody", 1), sample())


def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    it = toy(queue_rows=4)
    it.engine.submit(KEY, sample(3))
    with pytest.raises(ResourceExhausted) as caught:
        it.engine.submit(KEY, sample(2))
    assert caught.value.retry_after_s
    it.engine.start()
    it.engine.stop()


def test_what_cannot_finish_even_alone_is_refused_at_once() -> None:
    it = toy(before=Fault(delay_s=0.005))
    it.engine.start()
    it.engine.submit(KEY, sample(1, 20)).result(WAIT_S)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        it.engine.submit(KEY, sample(1, 1000), Options(deadline_s=0.5))
    assert time.monotonic() - begun < 0.1
    assert caught.value.reason == "DEADLINE_INFEASIBLE"
    assert float(caught.value.metadata["predicted_seconds"]) > 1
    it.engine.submit(KEY, sample(1, 10), Options(deadline_s=2.0)).result(WAIT_S)
    it.engine.stop()


def test_a_missed_deadline_frees_the_rows() -> None:
    it = toy(before=Fault(delay_s=0.01))
    it.engine.start()
    with pytest.raises(DeadlineExceeded) as caught:
        it.engine.submit(KEY, sample(1, 200), Options(deadline_s=0.1)).result(WAIT_S)
    assert caught.value.reason == "DEADLINE_MISSED"
    assert nothing_left(it)
    it.engine.stop()


def test_a_short_request_overtakes_a_long_one() -> None:
    it = toy(max_rows=2, before=Fault(delay_s=0.001))
    it.engine.start()
    it.engine.submit(KEY, sample(1, 5)).result(WAIT_S)  # the engine knows its step time now
    long = it.engine.submit(KEY, sample(8, 100))
    time.sleep(0.01)
    short = it.engine.submit(KEY, sample(2, 3))
    short.result(WAIT_S)
    assert not any(isinstance(event, Finished) for event in long._take())
    long.cancel()
    it.engine.stop()


def test_a_small_model_is_not_held_to_one_tick_per_tick_of_a_large_one() -> None:
    large = toy(before=Fault(delay_s=0.05))
    small = toy(key=ModelKey("small", 1), engine=large.engine)
    large.engine.start()
    background = large.engine.submit(KEY, sample(2, 100))
    time.sleep(0.12)
    begun = time.monotonic()
    large.engine.submit(ModelKey("small", 1), sample(1, 50)).result(WAIT_S)
    assert time.monotonic() - begun < 1.2  # alternating would take 2.5 s
    assert small.network.runs
    background.cancel()
    large.engine.stop()


def test_streams_tell_progress_previews_and_final_rows() -> None:
    it = toy(before=Fault(delay_s=0.001))
    it.engine.start()
    ticket = it.engine.submit(KEY, sample(2, 6), Options(stream=True, preview_every_steps=2))
    events = list(ticket)
    finals = [event for event in events if isinstance(event, RowFinal)]
    assert isinstance(events[0], Advanced)
    assert sorted(event.row for event in finals) == [0, 1]
    assert any(isinstance(event, Previewed) for event in events)
    assert isinstance(events[-1], Finished)
    np.testing.assert_array_equal(finals[0].data, events[-1].result.data[finals[0].row])  # type: ignore[union-attr]
    it.engine.stop()


def test_a_slow_reader_holds_a_bounded_number_of_events(made: Toy) -> None:
    ticket = made.engine.submit(KEY, sample(2, 900), Options(stream=True, preview_every_steps=1))
    while made.engine._worker.open_tasks:
        time.sleep(0.01)
    assert len(ticket._events) <= 2 + 2 + 1 + 1  # previews, final rows, progress, the answer


def test_stopping_fails_what_is_left_as_unavailable() -> None:
    it = toy(before=Fault(delay_s=0.01))
    it.engine.start()
    ticket = it.engine.submit(KEY, sample(1, 900))
    it.engine.stop()
    with pytest.raises(Unavailable):
        ticket.result(WAIT_S)
    with pytest.raises(Unavailable):
        it.engine.submit(KEY, sample())


def test_tickets_are_awaitable_from_an_event_loop(made: Toy) -> None:
    async def ask() -> int:
        ticket = made.engine.submit(KEY, sample(1, 4))
        return len([event async for event in ticket])

    assert asyncio.run(ask()) == 1


def calls_of_a_tick(rows: int) -> int:
    it = toy(max_rows=256, capacity=256)
    for index in range(rows):
        it.engine.submit(KEY, sample(1, 10, index / 300))
    worker = it.engine._worker
    worker._between_ticks()
    worker._tick(it.lane)
    count = 0

    def profile(frame: object, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    worker._tick(it.lane)
    sys.setprofile(None)
    return count


def test_python_calls_of_a_tick_do_not_depend_on_its_rows() -> None:
    assert calls_of_a_tick(2) == calls_of_a_tick(200)


def test_a_sticky_device_error_fails_what_is_in_flight_and_turns_the_engine_off() -> None:
    def poisoned(x: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    it = toy(before=poisoned)
    tickets = [it.engine.submit(KEY, sample(1, 9)) for _ in range(3)]
    it.engine.start()
    for ticket in tickets:
        with pytest.raises(Unavailable) as caught:
            ticket.result(WAIT_S)
        assert caught.value.reason == "DEVICE_LOST"
    until = time.monotonic() + 5
    while it.engine.alive and time.monotonic() < until:
        time.sleep(0.01)
    assert not it.engine.alive


def test_a_hung_run_is_noticed_and_fails_what_is_in_flight() -> None:
    it = toy(before=Fault(delay_s=1.5), hang_s=0.2)
    ticket = it.engine.submit(KEY, sample(1, 2))
    it.engine.start()
    begun = time.monotonic()
    with pytest.raises(Unavailable):
        ticket.result(WAIT_S)
    assert time.monotonic() - begun < 1.2
    assert not it.engine.alive


def test_errors_cross_process_borders_whole() -> None:
    error = ResourceExhausted("full", reason="QUEUE_FULL", retry_after_s=1.5, metadata={"rows": "3"})
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.message, copy.retry_after_s, copy.metadata) == (
        ResourceExhausted,
        "full",
        1.5,
        {"rows": "3"},
    )
