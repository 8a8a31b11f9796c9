"""Who waits hears something: streams tell that they are queued, and never fall silent."""

from __future__ import annotations

import itertools

from serving.engine import streams
from serving.engine.engine import Engine
from serving.engine.messages import Advanced, Options
from tests.serving.engine.toy import KEY, sample, toy


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_stream_that_waits_for_a_slot_hears_that_it_is_queued_well_within_ten_seconds() -> None:
    clock = Clock()
    it = toy(capacity=2, engine=Engine(clock=clock))
    worker = it.engine._worker
    it.engine.submit(KEY, sample(2, 1000))
    waiting = it.engine.submit(KEY, sample(1, 5), Options(stream=True))
    heard_s = []
    for _ in range(40):
        worker._between_ticks()
        worker._tick(it.lane)
        for event in waiting._take():
            assert isinstance(event, Advanced)
            assert event.queued
            heard_s.append(clock.now_s)
        clock.now_s += 1.0
    assert heard_s[0] == 0.0
    assert max(b - a for a, b in itertools.pairwise(heard_s)) <= streams.HEARTBEAT_S <= 8.0
    assert len(heard_s) >= 7


def test_progress_is_told_at_most_every_so_often() -> None:
    clock = Clock()
    it = toy(engine=Engine(clock=clock))
    ticket = it.engine.submit(KEY, sample(1, 500), Options(stream=True))
    heard = 0
    for _ in range(400):
        it.engine._worker._between_ticks()
        it.engine._worker._tick(it.lane)
        heard += len(ticket._take())
        clock.now_s += 0.01
    assert 400 * 0.01 / streams.PROGRESS_EVERY_S * 0.8 <= heard <= 400 * 0.01 / streams.PROGRESS_EVERY_S + 2
