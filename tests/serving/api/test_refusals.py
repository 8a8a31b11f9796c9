"""What the engine refused a moment ago it is not asked again, and nothing else is kept from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.api.refusals import HOLD_S, MOST_KINDS, Refusals
from serving.engine.messages import ModelKey, Options
from serving.errors import DeadlineExceeded, ResourceExhausted, ServingError
from serving.families.request import Operation, Request

KEY = ModelKey("digits", 1)
FULL = ResourceExhausted("full", retry_after_s=0.06)


class Engine:
    """Refuses with what it is given; ``asked`` counts. Time passes by hand."""

    def __init__(self, error: ServingError = FULL) -> None:
        self.error: ServingError | None = error
        self.now_s, self.asked = 100.0, 0
        self.refusals = Refusals(lambda: self.now_s)

    def ask(self, deadline_s: float | None = 3.0, key: ModelKey = KEY, **changed: Any) -> ServingError | None:
        """How a request is refused."""
        options = Options(deadline_s=deadline_s, **{k: changed.pop(k) for k in ("share",) if k in changed})
        asked = request(**changed)
        try:
            self.refusals.check(key, asked, options)
        except ServingError as error:
            return error
        self.asked += 1
        if self.error is not None:
            self.refusals.learn(key, asked, options, self.error)
        return self.error


def request(**changed: Any) -> Request:
    given: dict[str, Any] = {"parameters": {"steps": 50}, "seed": 1, "first_row": 0, "rows": 8, **changed}
    return Request(Operation.SAMPLE, "ddim", **given)


def test_the_same_kind_of_request_hears_the_same_with_the_time_that_is_left() -> None:
    engine = Engine()
    assert engine.ask() is FULL
    engine.now_s += 0.005
    error = engine.ask(seed=2, first_row=8)
    assert engine.asked == 1
    assert isinstance(error, ResourceExhausted)
    assert (error.message, error.reason) == ("full", "QUEUE_FULL")
    assert error.retry_after_s == pytest.approx(0.055)


@pytest.mark.parametrize(
    "changed",
    [
        {"rows": 7},
        {"completions": 2},
        {"parameters": {"steps": 49}},
        {"data": np.zeros((8, 3)), "lengths": np.array([3] * 8, np.int32)},
        {"share": "another"},
        {"key": ModelKey("digits", 2)},
    ],
    ids=str,
)
def test_other_kinds_are_the_engines_to_refuse(changed: dict[str, Any]) -> None:
    engine = Engine()
    engine.ask()
    engine.ask(**changed)
    assert engine.asked == 2


def test_a_deadline_that_may_be_met_is_the_engines_to_judge() -> None:
    engine = Engine()
    engine.ask(3.0)
    engine.ask(3.0 + 0.05)
    assert engine.asked == 1
    engine.ask(3.0 + 0.07)
    engine.ask(None)
    assert engine.asked == 3


def test_it_is_asked_again_when_it_said_that_there_would_be_room() -> None:
    engine = Engine()
    engine.ask()
    engine.now_s += 0.059
    engine.ask(2.9)
    assert engine.asked == 1
    engine.now_s += 0.002
    engine.error = None
    assert engine.ask() is None
    assert engine.asked == 2
    assert engine.ask() is None


def test_it_is_asked_again_soon_however_long_it_said_that_it_would_take() -> None:
    engine = Engine(ResourceExhausted("full", retry_after_s=60.0))
    engine.ask()
    engine.now_s += HOLD_S * 1.01
    engine.ask()
    assert engine.asked == 2


@pytest.mark.parametrize(
    "error",
    [
        ResourceExhausted("used up", reason="QUOTA", retry_after_s=60.0),
        ResourceExhausted("no time", reason="QUEUE_FULL"),
        DeadlineExceeded("never", reason="DEADLINE_INFEASIBLE"),
    ],
    ids=str,
)
def test_other_refusals_are_not_remembered(error: ServingError) -> None:
    engine = Engine(error)
    engine.ask()
    engine.ask()
    assert engine.asked == 2


def test_what_is_remembered_is_bounded() -> None:
    engine = Engine()
    for rows in range(3 * MOST_KINDS):
        engine.ask(rows=rows)
    assert len(engine.refusals._known) <= MOST_KINDS
