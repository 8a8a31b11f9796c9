"""Whose turn it is: shares in device seconds, no credit for idleness, lanes in rotation."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from serving.engine.lane import Keys, Lane, Tasks, Tick
from serving.engine.messages import ModelKey
from serving.engine.turns import Turns
from serving.families.rows import Loop

A, B = ModelKey("a", 1), ModelKey("b", 1)


class FakeLane(Lane):
    def __init__(self, model: ModelKey, component: str = "net") -> None:
        super().__init__(model, component)
        self.waits = True
        self.waiting = np.empty(0, np.int64)

    def busy(self) -> bool:
        return self.waits

    def tasks(self) -> Tasks:
        return self.waiting

    def contest(self, keys: Keys | None) -> None:
        raise NotImplementedError

    def tick(self, keys: Keys) -> Tick:
        return Tick(np.empty(0, np.int64), np.empty(0, np.int64))

    def add_loop(self, task: int, loop: Loop) -> None:
        raise NotImplementedError

    def drop(self, task: int) -> None:
        raise NotImplementedError


def run(turns: Turns, lanes: list[FakeLane], costs_s: dict[ModelKey, float], ticks: int) -> Counter[ModelKey]:
    chosen: Counter[ModelKey] = Counter()
    for _ in range(ticks):
        lane = turns.choose(lanes)
        assert lane is not None
        turns.charge(lane.model, costs_s[lane.model])
        chosen[lane.model] += 1
    return chosen


def test_nobody_waits_nobody_runs() -> None:
    lane = FakeLane(A)
    lane.waits = False
    assert Turns().choose([lane]) is None


@pytest.mark.parametrize("cost_s", [0.001, 0.01, 0.02])
def test_busy_models_get_equal_device_seconds_whatever_their_ticks_cost(cost_s: float) -> None:
    costs_s = {A: cost_s, B: 0.001}
    chosen = run(Turns(), [FakeLane(A), FakeLane(B)], costs_s, 2000)
    assert chosen[A] * costs_s[A] == pytest.approx(chosen[B] * costs_s[B], rel=0.05)


def test_who_comes_during_the_last_run_of_a_request_waits_for_that_run_alone() -> None:
    turns, large, small = Turns(), FakeLane(A), FakeLane(B)
    small.waits = False
    run(turns, [large, small], {A: 0.4}, 10)
    small.waits, large.waits = True, False  # while the large one ran, which was its request's last run
    assert run(turns, [large, small], {B: 0.001}, 1) == {B: 1}
    large.waits = True  # its caller asks again at once
    assert run(turns, [large, small], {A: 0.4, B: 0.001}, 50) == {B: 50}


def test_a_model_that_was_idle_does_not_spend_credit_saved_meanwhile() -> None:
    turns, a, b = Turns(), FakeLane(A), FakeLane(B)
    b.waits = False
    run(turns, [a, b], {A: 0.01}, 1000)
    b.waits = True
    assert run(turns, [a, b], {A: 0.01, B: 0.01}, 10)[A] == 5


def test_a_model_that_wakes_is_not_punished_for_what_it_had_before() -> None:
    turns, a, b = Turns(), FakeLane(A), FakeLane(B)
    a.waits = False
    run(turns, [a, b], {B: 0.01}, 1000)
    a.waits, b.waits = True, False
    run(turns, [a, b], {A: 0.01}, 1)
    b.waits = True
    assert run(turns, [a, b], {A: 0.01, B: 0.01}, 10)[B] >= 4


def test_lanes_of_one_model_take_turns() -> None:
    turns, lanes = Turns(), [FakeLane(A, name) for name in ("encoder", "decoder", "score")]
    order = []
    for _ in range(6):
        lane = turns.choose(lanes)
        assert lane is not None
        order.append(lane.component)
        turns.charge(A, 0.01)
    assert order == ["encoder", "decoder", "score"] * 2


def test_a_forgotten_model_begins_anew() -> None:
    turns, a, b = Turns(), FakeLane(A), FakeLane(B)
    run(turns, [a, b], {A: 0.01, B: 0.01}, 100)
    turns.forget(A)
    assert run(turns, [a, b], {A: 0.01, B: 0.01}, 10)[A] in (5, 6)
