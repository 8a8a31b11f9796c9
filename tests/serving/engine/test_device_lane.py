"""Lanes whose device runs by itself: the CPU plays the device, one tick ahead; the bytes are the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from serving.engine.batched_lane import BatchedLane
from serving.engine.device_lane import DeviceLane
from serving.engine.device_runs import DeviceRuns
from serving.engine.messages import Options, Previewed, RowFinal
from serving.errors import Cancelled, Internal
from serving.families.diffusion.device_steps import DeviceSteps
from serving.families.diffusion.table import DenoiseTable
from serving.families.request import Request
from serving.families.result import Completed, Result, Sampled, Scored
from serving.families.rows import Slots
from tests.serving.engine.gaussian_engine import KEY, WAIT_S, Made, inpaint, made, sample, score


@pytest.fixture
def device() -> Iterator[Made]:
    it = made(DeviceLane)
    it.engine.start()
    yield it
    it.engine.stop()


def everything() -> list[Request]:
    return [
        sample("ddim", 3, 12),
        sample("ddpm", 2, 7),
        sample("ddim", 2, 9, guidance_scale=2.5),
        inpaint(2),
        sample("dpmpp_2m", 4, 6),
        score(3),
        sample("ddpm", 1, 30, 9),
        sample("ddim", 1, 5, dynamic_threshold=0.9),  # more than coefficients: read at once
    ]


def numbers(result: Result) -> np.ndarray:
    if isinstance(result, Scored):
        return result.log_prob
    assert isinstance(result, Sampled | Completed)
    return result.data


def nothing_left(it: Made) -> bool:
    until = time.monotonic() + 5
    while time.monotonic() < until:
        free = all((residents.owner == -1).all() for residents, _ in it.lane._tables)
        if free and not it.lane.busy() and not it.engine._worker.open_tasks:
            return True
        time.sleep(0.01)
    return False


def test_every_method_gives_the_bytes_of_an_ordinary_lane_alone_and_together(device: Made) -> None:
    ordinary = made(BatchedLane)
    ordinary.engine.start()
    expected = [numbers(result) for result in ordinary.results(everything())]
    ordinary.engine.stop()
    together = [numbers(result) for result in device.results(everything())]
    alone = [numbers(device.results([request])[0]) for request in everything()]
    for want, first, second in zip(expected, together, alone, strict=True):
        np.testing.assert_array_equal(first, want)
        np.testing.assert_array_equal(second, want)
    assert nothing_left(device)


def test_rows_that_stay_are_seated_once(device: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    seats, runs = [], []
    seat, run = DeviceSteps.seat, DeviceRuns.run

    def counted_seat(it: DeviceSteps, slots: Slots) -> None:
        seats.append(len(slots))
        seat(it, slots)

    def counted_run(it: DeviceRuns, slots: Slots, rows: int) -> torch.Tensor:
        runs.append(rows)
        return run(it, slots, rows)

    monkeypatch.setattr(DeviceSteps, "seat", counted_seat)
    monkeypatch.setattr(DeviceRuns, "run", counted_run)
    device.results([sample("ddim", 5, 40)])
    assert seats == [5]
    assert runs == [5] * 40


class NoWaiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses operators that read the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket._qualified_op_name not in READING, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


READING = {"aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::equal", "aten::masked_select"}


def test_taking_seats_and_showing_rows_to_the_network_waits_for_nothing(device: Made) -> None:
    (_, table) = device.lane._tables[0]
    assert isinstance(table, DenoiseTable)
    device.results([sample("ddim", 2, 3, guidance_scale=2.0)])
    binding = device.lane._network.binding(())
    standing = table.stand(binding.inputs, binding.outputs)
    with NoWaiting():  # type: ignore[no-untyped-call]
        standing.seat(np.array([1, 0]))
        standing.present()


def test_every_size_is_recorded_before_the_first_request_and_never_again(
    device: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeviceRuns, "_recorded", lambda *_: pytest.fail("recorded while serving"))
    device.results([sample("ddim", rows, 3) for rows in (1, 2, 3, 5, 8)])


def test_rows_that_are_not_finite_fail_alone_one_tick_late(device: Made) -> None:
    (expected,) = device.results([sample("ddim", 2, 30)])
    good, bad = sample("ddim", 2, 30), sample("ddim", 1, 30, seed=11)
    poisoned = device.engine.submit(KEY, bad, Options(stream=True))
    runs = 0

    def poison(x: torch.Tensor) -> None:
        nonlocal runs
        runs += 1
        if runs == 8:
            x[0] = torch.nan  # the first slot: the request that came first

    device.fault.act = poison
    neighbour = device.engine.submit(KEY, good)
    with pytest.raises(Internal, match="NaN or infinity"):
        poisoned.result(WAIT_S)
    np.testing.assert_array_equal(numbers(neighbour.result(WAIT_S)), numbers(expected))
    assert nothing_left(device)


def test_a_last_step_that_is_not_finite_is_still_seen(device: Made) -> None:
    runs = 0

    def poison(x: torch.Tensor) -> None:
        nonlocal runs
        runs += 1
        if runs == 6:
            x[0] = torch.inf

    device.fault.act = poison
    with pytest.raises(Internal, match="NaN or infinity"):
        device.results([sample("ddim", 1, 6)])
    assert nothing_left(device)


def test_a_run_that_raises_fails_the_guilty_row_alone(device: Made) -> None:
    (expected,) = device.results([sample("ddim", 3, 20)])
    marked: list[float] = []

    def refuse(x: torch.Tensor) -> None:
        if marked and bool((x[:, 0] == marked[0]).any()):
            raise RuntimeError("injected fault")
        if not marked and len(x) >= 4:
            marked.append(float(x[3, 0]))

    device.fault.act = refuse
    tickets = [device.engine.submit(KEY, r) for r in (sample("ddim", 3, 20), sample("ddim", 1, 20, seed=3))]
    outcomes = []
    for ticket in tickets:
        try:
            outcomes.append(numbers(ticket.result(WAIT_S)))
        except Internal:
            outcomes.append(np.empty(0))
    assert sum(not outcome.size for outcome in outcomes) <= 1
    if outcomes[0].size:
        np.testing.assert_array_equal(outcomes[0], numbers(expected))
    assert nothing_left(device)


def test_cancelling_frees_rows_while_a_step_is_under_way(device: Made) -> None:
    device.fault.act = lambda x: time.sleep(0.002)
    (expected,) = device.results([sample("ddpm", 2, 60, 4)])
    tickets = [device.engine.submit(KEY, sample("ddpm", 2, 60, seed)) for seed in (3, 4)]
    time.sleep(0.03)
    tickets[0].cancel()
    with pytest.raises(Cancelled):
        tickets[0].result(WAIT_S)
    later = device.engine.submit(KEY, sample("ddim", 2, 3))
    np.testing.assert_array_equal(numbers(tickets[1].result(WAIT_S)), numbers(expected))
    later.result(WAIT_S)
    assert nothing_left(device)


def test_streams_show_rows_and_previews_as_an_ordinary_lane_does(device: Made) -> None:
    ordinary = made(BatchedLane)
    ordinary.engine.start()
    shown = []
    for it in (ordinary, device):
        ticket = it.engine.submit(KEY, sample("ddim", 2, 9), Options(stream=True, preview_every_steps=3))
        events = list(ticket)
        rows = sorted((e.row, e.data.tobytes()) for e in events if isinstance(e, RowFinal))
        previews = {(e.row, e.step): e.data.tobytes() for e in events if isinstance(e, Previewed)}
        shown.append((rows, previews))
    ordinary.engine.stop()
    assert [row for row, _ in shown[1][0]] == [0, 1]
    assert shown[0][0] == shown[1][0]
    assert {(0, 6), (1, 6)} <= set(shown[0][1]) & set(shown[1][1])  # older ones may give way to newer ones
    assert all(shown[0][1].get(key, data) == data for key, data in shown[1][1].items())
