"""Tickets: events in order, one last word, and little memory however slow the reader."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from serving.engine.messages import Advanced, Event, Failed, Finished, Previewed, RowFinal, Usage
from serving.engine.ticket import Ticket
from serving.errors import Cancelled
from serving.families.result import Sampled, SampleKind

ROW = np.zeros(3, np.float32)
RESULT = Sampled(np.zeros((1, 3), np.float32), SampleKind.EXACT)
DONE = Finished(RESULT, Usage(1, 0.0, 0.0))


def made() -> Ticket:
    return Ticket(1, lambda _: None)


def progress(done: int) -> Advanced:
    return Advanced(done, 1000, 0.0, queued=False)


def test_a_slow_reader_finds_the_latest_progress_and_preview_of_each_row_and_every_final_row() -> None:
    ticket = made()
    for step in range(1000):
        ticket.post(progress(step))
        for row in range(3):
            ticket.post(Previewed(row, step, ROW))
        assert len(ticket._events) <= 4
    for row in range(3):
        ticket.post(RowFinal(row, ROW))
    ticket.post(DONE)
    events = list(ticket)
    assert [e.steps_done for e in events if isinstance(e, Advanced)] == [999]
    assert [(e.row, e.step) for e in events if isinstance(e, Previewed)] == [(row, 999) for row in range(3)]
    assert [e.row for e in events if isinstance(e, RowFinal)] == [0, 1, 2]
    assert events[-1] is DONE


def test_a_running_estimate_survives_progress_without_one() -> None:
    ticket = made()
    ticket.post(Advanced(1, 10, 0.0, queued=False, partial=RESULT))
    ticket.post(progress(2))
    ticket.post(DONE)
    first = next(iter(ticket))
    assert isinstance(first, Advanced)
    assert (first.steps_done, first.partial) == (2, RESULT)


def test_nothing_follows_the_last_event() -> None:
    ticket = made()
    ticket.post(DONE)
    ticket.post(Failed(Cancelled("too late")))
    assert list(ticket) == [DONE]


def test_a_failure_is_raised_and_a_late_answer_times_out() -> None:
    ticket = made()
    with pytest.raises(TimeoutError):
        ticket.result(0.01)
    ticket.post(Failed(Cancelled("no")))
    with pytest.raises(Cancelled):
        ticket.result(0.01)


def test_cancel_names_the_ticket() -> None:
    numbers: list[int] = []
    Ticket(7, numbers.append).cancel()
    assert numbers == [7]


def test_events_reach_an_event_loop_from_another_thread_in_order() -> None:
    async def read() -> list[Event]:
        ticket = made()

        def write() -> None:
            for row in range(200):
                ticket.post(RowFinal(row, ROW))
            ticket.post(DONE)

        thread = threading.Thread(target=write)
        thread.start()
        events = [event async for event in ticket]
        thread.join()
        return events

    events: list[Any] = asyncio.run(asyncio.wait_for(read(), 10))
    assert [event.row for event in events[:-1]] == list(range(200))


def test_a_reader_whose_loop_is_closed_is_cancelled_for() -> None:
    numbers: list[int] = []

    async def open_one() -> Ticket:
        return Ticket(3, numbers.append)

    ticket = asyncio.run(open_one())
    ticket.post(progress(1))
    assert numbers == [3]
