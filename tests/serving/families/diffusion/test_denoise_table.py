"""The table: rows alone, together and staggered, bit for bit; Python work independent of rows."""

from __future__ import annotations

import sys
from types import FrameType

import numpy as np
import pytest
import torch

from export.package.schema import Condition
from serving.families.diffusion.denoiser import TABLE
from serving.families.diffusion.family import DiffusionFamily
from serving.families.diffusion.grid import levels_of
from serving.families.diffusion.plan import Choices, plan_of
from serving.families.diffusion.process import Process
from serving.families.diffusion.samplers.first_order import ddim
from serving.families.diffusion.table import DenoiseRows, DenoiseTable
from serving.families.drive import empty_inputs
from serving.families.request import Operation, Request
from serving.families.rows import Loop, Slots
from tests.analytic.diffusion.gaussian import diffusion, levels_space, package
from tests.serving.families.diffusion.networks import LABEL, Elementwise

ELEMENTS = 20
NETWORK = Elementwise((ELEMENTS,))


def _family() -> DiffusionFamily:
    section = diffusion("vp", clip_range=(-1.0, 1.0), clip_default=True)
    return DiffusionFamily(package(section, levels_space(ELEMENTS), (LABEL,)))


def _table(capacity: int = 64) -> DenoiseTable:
    table = _family().tables({}, capacity, torch.device("cpu"))[TABLE]
    assert isinstance(table, DenoiseTable)
    return table


def _request(method: str, rows: int, first_row: int = 0, **parameters: float) -> Request:
    labels = (np.arange(rows) + first_row) % 10
    return Request(
        Operation.SAMPLE,
        method,
        parameters,
        5,
        first_row,
        rows,
        conditions={"label": labels.astype(np.int64)},
    )


def _inpaint(rows: int, first_row: int = 0) -> Request:
    data = np.full((rows, ELEMENTS), 7, np.uint8)
    observed = np.zeros((rows, ELEMENTS), np.bool_)
    observed[:, ::3] = True
    labels = np.full(rows, 10, np.int64)
    parameters = {"steps": 9, "jump_length": 3, "resamplings": 2}
    return Request(
        Operation.INPAINT, "repaint", parameters, 5, first_row, rows,
        data=data, observed=observed, conditions={"label": labels},
    )  # fmt: skip


def _loop(request: Request) -> Loop:
    work = next(_family().program(request))
    assert isinstance(work, Loop)
    return work


def _tick(table: DenoiseTable, slots: Slots) -> None:
    active = slots[table.remaining(slots) > 0]
    if len(active):
        inputs = empty_inputs(NETWORK, int(table.width(active).sum()))
        table.gather(active, inputs)
        table.advance(active, NETWORK(inputs))


def _alone(request: Request) -> torch.Tensor:
    table, slots = _table(), np.arange(request.rows)
    table.admit(slots, _loop(request))
    while table.remaining(slots).any():
        _tick(table, slots)
    return table.result(slots)["x"]


MIXED = [
    _request("ddpm", 3, steps=20),
    _request("ddim", 2, steps=7, guidance_scale=2.5),
    _request("heun", 2, steps=5),
    _request("dpmpp_2m", 3, 4, steps=18),
    _request("ddim", 1, steps=6, guidance_scale=2.5, guidance_rescale=0.7),
    _request("sde_dpmpp_2m", 1, steps=40),
    _inpaint(2),
]


def test_beside_a_clipped_x0_ddim_goes_on_with_the_predicted_noise_where_the_package_says_so() -> None:
    section = diffusion("vp", clip_range=(-1.0, 1.0), clip_default=True, clipped_noise="predicted")
    family = DiffusionFamily(package(section, levels_space(ELEMENTS), (LABEL,)))
    request = _request("ddim", 2, steps=3)
    work = next(family.program(request))
    assert isinstance(work, Loop)
    table, slots = family.tables({}, 2, torch.device("cpu"))[TABLE], np.arange(2)
    assert isinstance(table, DenoiseTable)
    table.admit(slots, work)
    levels = levels_of(Process(section), 3, "trailing")
    for alpha, sigma, alpha_after, sigma_after in zip(
        levels.alpha[:-1], levels.sigma[:-1], levels.alpha[1:], levels.sigma[1:], strict=True
    ):
        inputs = empty_inputs(NETWORK, 2)
        table.gather(slots, inputs)
        noise = 3.0 * NETWORK(inputs)["prediction"]
        x0 = ((inputs["x"] - sigma * noise) / alpha).clamp(-1.0, 1.0)
        assert (x0.abs() == 1.0).any()
        table.advance(slots, {"prediction": noise})
        wanted = (alpha_after * x0 + sigma_after * noise).numpy()
        np.testing.assert_allclose(table.result(slots)["x"].numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_rows_bring_null_values_of_their_own_and_keep_conditions_without_any() -> None:
    conditions = (
        Condition(name="text", kind="vector", shape=(2,)),
        Condition(name="picture", kind="vector", shape=(3,)),
    )
    table, slots = DenoiseTable((4,), conditions, 4, torch.device("cpu"), {"text": None}), np.array([2, 0])
    plan = plan_of(
        Process(diffusion("vp")), ddim(levels_of(Process(diffusion("vp")), 2, "trailing")), Choices(2.0)
    )
    given = {"text": np.full((2, 2), 5.0, np.float32), "picture": np.full((2, 3), 7.0, np.float32)}
    nulls = {"text": np.array([[1.0, 1.0], [2.0, 2.0]], np.float32)}
    payload = DenoiseRows(plan, 1, np.arange(2), given, nulls=nulls)
    table.admit(slots, Loop(TABLE, 2, payload, np.full(2, 2)))
    inputs = {
        "x": torch.zeros(4, 4), "t": torch.zeros(4), "text": torch.zeros(4, 2), "picture": torch.zeros(4, 3)
    }  # fmt: skip
    table.gather(slots, inputs)
    assert inputs["text"][:, 0].tolist() == [5.0, 5.0, 1.0, 2.0]
    assert inputs["picture"][:, 0].tolist() == [7.0] * 4


def test_rows_are_bitwise_the_same_alone_and_staggered_among_others() -> None:
    table, taken = _table(), np.zeros(64, np.bool_)
    order = np.random.default_rng(0).permutation(64)
    slots: list[Slots] = []
    for request in MIXED:
        mine = np.sort(order[~taken[order]][: request.rows])
        taken[mine] = True
        table.admit(mine, _loop(request))
        slots.append(mine)
        for _ in range(2):
            _tick(table, np.flatnonzero(taken))
    while table.remaining(np.flatnonzero(taken)).any():
        _tick(table, np.flatnonzero(taken))
    for request, mine in zip(MIXED, slots, strict=True):
        assert torch.equal(table.result(mine)["x"], _alone(request))


@pytest.mark.parametrize("request_", MIXED, ids=lambda request: str(request.method))
def test_compiled_and_tensor_steps_give_the_same_bits(request_: Request) -> None:
    table, slots = _table(), np.arange(request_.rows)
    assert table._compiled_steps is not None
    table._compiled_steps = None
    table.admit(slots, _loop(request_))
    while table.remaining(slots).any():
        _tick(table, slots)
    assert torch.equal(table.result(slots)["x"], _alone(request_))


def test_the_first_rows_of_many_equal_a_smaller_request() -> None:
    assert torch.equal(_alone(_request("ddpm", 5, steps=20))[:2], _alone(_request("ddpm", 2, steps=20)))


def test_a_split_request_equals_the_whole_one() -> None:
    whole = _alone(_request("ddpm", 5, steps=20))
    assert torch.equal(whole[3:], _alone(_request("ddpm", 2, 3, steps=20)))


def test_a_slot_remembers_nothing_of_its_last_row() -> None:
    table, slots = _table(), np.arange(2)
    table.admit(slots, _loop(_inpaint(2)))
    for _ in range(4):
        _tick(table, slots)
    table.release(slots)
    request = _request("dpmpp_2m", 2, steps=18)
    table.admit(slots, _loop(request))
    while table.remaining(slots).any():
        _tick(table, slots)
    assert torch.equal(table.result(slots)["x"], _alone(request))


def _calls_of_a_tick(rows: int, method: str) -> int:
    table, slots = _table(256), np.arange(rows)
    table.admit(slots, _loop(_request(method, rows, steps=40, guidance_scale=2.0)))
    inputs = empty_inputs(NETWORK, 2 * rows)
    outputs = {"prediction": torch.ones(2 * rows, ELEMENTS)}
    table.gather(slots, inputs)
    table.advance(slots, outputs)
    calls = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        table.gather(slots, inputs)
        table.advance(slots, outputs)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("method", ["ddim", "ddpm", "dpmpp_2m"])
def test_python_calls_of_a_tick_do_not_depend_on_its_rows(method: str) -> None:
    assert _calls_of_a_tick(1, method) == _calls_of_a_tick(200, method)


def test_guided_rows_are_asked_twice_the_second_time_without_condition() -> None:
    table, slots = _table(), np.arange(3)
    table.admit(slots[:1], _loop(_request("ddim", 1, steps=4)))
    table.admit(slots[1:], _loop(_request("ddim", 2, steps=4, guidance_scale=3.0)))
    assert table.width(slots).tolist() == [1, 2, 2]
    inputs = empty_inputs(NETWORK, 5)
    table.gather(slots, inputs)
    assert inputs["label"].tolist() == [0, 0, 1, 10, 10]
    assert torch.equal(inputs["x"][3:], inputs["x"][1:3])


def test_equal_plans_share_their_lines_until_the_last_row_leaves() -> None:
    table = _table()
    for start in (0, 2):
        table.admit(np.arange(start, start + 2), _loop(_request("ddpm", 2, steps=20)))
    assert len(set(table._columns.first[:4].tolist())) == 1
    table.release(np.arange(4))
    table.admit(np.arange(4), _loop(_request("ddim", 4, steps=7)))
    assert table._columns.first[0] == 0


def test_preview_is_an_estimate_of_the_data() -> None:
    table, slots = _table(), np.arange(2)
    table.admit(slots, _loop(_request("ddpm", 2, steps=20)))
    _tick(table, slots)
    preview = table.preview(slots)["x"]
    assert preview.shape == (2, ELEMENTS)
    assert preview.abs().max() <= 1.0
