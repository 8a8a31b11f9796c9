"""Decoding one step ahead of the host: the CPU plays the device, and every token is the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from serving.engine.device_slotted_lane import DeviceSlottedLane
from serving.engine.messages import Options, RowFinal
from serving.engine.slotted_lane import SlottedLane
from serving.errors import Cancelled, Internal
from serving.families.autoregressive.running import Running
from serving.families.request import Request
from serving.families.result import Result, Sampled
from serving.families.rows import Slots
from tests.serving.engine.decoder_engine import KEY, Made, made, sample


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Made]:
    it = made(DeviceSlottedLane, tmp_path)
    it.engine.start()
    yield it
    it.engine.stop()


@pytest.fixture
def ordinary(tmp_path: Path) -> Iterator[Made]:
    it = made(SlottedLane, tmp_path)
    it.engine.start()
    yield it
    it.engine.stop()


def everything() -> list[Request]:
    return [
        sample(3, 15),
        sample(2, 8, seed=9, prompt=5),
        sample(1, 20, temperature=0.0),
        sample(4, 6, seed=2, top_k=3),
        sample(2, 12, seed=4, prompt=9, top_p=0.8),
        sample(1, 1, seed=8),
    ]


def same(result: Result, expected: Result) -> None:
    """Tokens exactly; products of other row counts sum in another order on CPU."""
    assert isinstance(result, Sampled)
    assert isinstance(expected, Sampled)
    for found, wanted in ((result.data, expected.data), (result.lengths, expected.lengths)):
        assert found is not None
        assert wanted is not None
        np.testing.assert_array_equal(found, wanted)
    assert result.log_prob is not None
    assert expected.log_prob is not None
    np.testing.assert_allclose(result.log_prob, expected.log_prob, atol=1e-4)


def nothing_left(it: Made) -> bool:
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if not it.lane.busy() and not it.engine._worker.open_tasks:
            return bool((it.lane._residents.owner == -1).all())
        time.sleep(0.01)
    return False


def test_tokens_and_probabilities_are_those_of_an_ordinary_lane(device: Made, ordinary: Made) -> None:
    expected = ordinary.results(everything())
    alone = [device.results([request])[0] for request in everything()]
    for results in (device.results(everything()), alone):
        for result, wanted in zip(results, expected, strict=True):
            same(result, wanted)
    assert nothing_left(device)


def test_no_step_is_started_that_a_row_may_not_take(device: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    start = Running.start

    def counted(it: Running, slots: Slots) -> object:
        started.append(len(slots))
        return start(it, slots)

    monkeypatch.setattr(Running, "start", counted)
    (result,) = device.results([sample(2, 9, seed=3)])
    assert isinstance(result, Sampled)
    assert result.lengths is not None
    longest = int(result.lengths.max())
    assert longest <= len(started) <= min(9, longest + 2)  # one more than its end symbol, read too late


def test_every_size_is_recorded_before_the_first_request(
    device: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Running, "_recorded", lambda *_: pytest.fail("recorded while serving"))
    for rows in (1, 2, 3, 4):
        device.results([sample(rows, 3)])


def test_a_row_that_is_not_finite_fails_alone(
    device: Made, ordinary: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = ordinary.results([sample(2, 20, seed=6, prompt=2)])
    keys, start, started = device.decoder._cache["key_0"], Running.start, 0

    def poisoned(it: Running, slots: Slots) -> object:
        nonlocal started
        started += 1
        if started == 5:
            keys[0, :, 0] = torch.nan  # the first slot: the request that came first
        return start(it, slots)

    monkeypatch.setattr(Running, "start", poisoned)
    bad = device.engine.submit(KEY, sample(1, 20, seed=46, prompt=2))  # of many tokens
    good = device.engine.submit(KEY, sample(2, 20, seed=6, prompt=2))
    with pytest.raises(Internal, match="NaN or infinity"):
        bad.result(20.0)
    same(good.result(20.0), expected)
    assert nothing_left(device)


def test_cancelling_frees_slots_while_a_step_is_under_way(device: Made, ordinary: Made) -> None:
    (expected,) = ordinary.results([sample(2, 20, seed=6)])
    tickets = [device.engine.submit(KEY, sample(3, 20, seed=seed)) for seed in range(3)]
    kept = device.engine.submit(KEY, sample(2, 20, seed=6))
    for ticket in tickets:
        ticket.cancel()
    for ticket in tickets:
        with pytest.raises(Cancelled):
            ticket.result(20.0)
    same(kept.result(20.0), expected)
    assert nothing_left(device)


def test_streams_show_tokens_and_final_rows(device: Made) -> None:
    ticket = device.engine.submit(KEY, sample(2, 9), Options(stream=True, preview_every_steps=2))
    rows = {event.row: event.data for event in ticket if isinstance(event, RowFinal)}
    (result,) = device.results([sample(2, 9)])
    assert isinstance(result, Sampled)
    assert result.lengths is not None
    for row, data in rows.items():
        length = int(result.lengths[row])
        np.testing.assert_array_equal(data[:length], result.data[row, :length])
    assert sorted(rows) == [0, 1]
