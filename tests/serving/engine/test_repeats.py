"""Runs that are repeated: the same bytes and books as one tick at a time, and nobody waits for them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from serving.engine import batched_lane, spans, stepper
from serving.engine.batched_lane import BatchedLane
from serving.engine.messages import Options
from serving.engine.steady import Steady
from serving.errors import Cancelled, DeadlineExceeded, Internal
from serving.families.result import Sampled
from tests.serving.engine.gaussian_engine import KEY, WAIT_S, Made, made, sample


@pytest.fixture
def it() -> Iterator[Made]:
    engine = made(BatchedLane)
    engine.engine.start()
    yield engine
    engine.engine.stop()


def test_bytes_and_books_are_those_of_single_ticks(it: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [sample("ddim", 3, 40), sample("ddpm", 2, 25, 3), sample("ddim", 1, 30, guidance_scale=2.0)]
    repeated = [it.engine.submit(KEY, request).finished(WAIT_S) for request in requests]
    monkeypatch.setattr(stepper, "REPEAT_S", 0.0)
    monkeypatch.setattr(Steady, "of", lambda *_: None)
    single = [it.engine.submit(KEY, request).finished(WAIT_S) for request in requests]
    for one, other in zip(repeated, single, strict=True):
        assert isinstance(one.result, Sampled)
        assert isinstance(other.result, Sampled)
        np.testing.assert_array_equal(one.result.data, other.result.data)
        assert one.usage.network_evaluations == other.usage.network_evaluations


def test_a_long_loop_of_one_request_is_decided_a_few_times(it: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks, tick = 0, BatchedLane.tick

    def counted(lane: BatchedLane, keys: object) -> object:
        nonlocal ticks
        ticks += 1
        return tick(lane, keys)  # type: ignore[arg-type]

    monkeypatch.setattr(BatchedLane, "tick", counted)
    it.engine.submit(KEY, sample("ddim", 1, 300)).result(WAIT_S)
    assert ticks < 100


def test_more_rows_than_fit_are_chosen_again_only_when_some_end(
    it: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, lowest = 0, spans.lowest

    def counted(*given: Any) -> Any:
        nonlocal chosen
        chosen += 1
        return lowest(*given)

    monkeypatch.setattr(batched_lane, "lowest", counted)
    tickets = [it.engine.submit(KEY, sample("ddim", 5, steps)) for steps in (300, 200)]  # of a capacity of 8
    together = [ticket.result(WAIT_S) for ticket in tickets]
    assert 0 < chosen < 20
    for steps, found in zip((300, 200), together, strict=True):
        alone = it.engine.submit(KEY, sample("ddim", 5, steps)).result(WAIT_S)
        assert isinstance(found, Sampled)
        assert isinstance(alone, Sampled)
        np.testing.assert_array_equal(found.data, alone.data)


def test_newcomers_deadlines_and_cancellation_interrupt_repeats(it: Made) -> None:
    it.fault.act = lambda x: time.sleep(0.001)
    long = it.engine.submit(KEY, sample("ddim", 1, 900))
    time.sleep(0.05)
    begun_s = time.monotonic()
    it.engine.submit(KEY, sample("ddim", 1, 5)).result(WAIT_S)
    assert time.monotonic() - begun_s < 0.5
    late = it.engine.submit(KEY, sample("ddim", 1, 900), Options(deadline_s=None))
    late.cancel()
    with pytest.raises(Cancelled):
        late.result(WAIT_S)
    long.cancel()
    with pytest.raises(Cancelled):
        long.result(WAIT_S)


def test_a_deadline_that_passes_during_repeats_is_seen(it: Made) -> None:
    delays = iter([0.0] * 20 + [0.004] * 2000)
    it.fault.act = lambda x: time.sleep(next(delays, 0.004))
    it.engine.submit(KEY, sample("ddim", 1, 20)).result(WAIT_S)  # the engine believes that steps are short
    begun_s = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        it.engine.submit(KEY, sample("ddim", 1, 500), Options(deadline_s=0.5)).result(WAIT_S)
    assert time.monotonic() - begun_s < 1.0


def test_rows_that_are_not_finite_are_found_among_repeats(it: Made) -> None:
    (expected,) = it.results([sample("ddim", 2, 30)])
    runs = 0

    def poison(x: torch.Tensor) -> None:
        nonlocal runs
        runs += 1
        if runs >= 10 and len(x) == 3:
            x[0] = torch.nan  # the first slot: the request that came first

    poisoned = it.engine.submit(KEY, sample("ddim", 1, 30, seed=11))
    neighbour = it.engine.submit(KEY, sample("ddim", 2, 30))
    it.fault.act = poison
    with pytest.raises(Internal, match="NaN or infinity"):
        poisoned.result(WAIT_S)
    it.fault.act = lambda x: None
    result = neighbour.result(WAIT_S)
    assert isinstance(result, Sampled)
    assert isinstance(expected, Sampled)
    np.testing.assert_array_equal(result.data, expected.data)
