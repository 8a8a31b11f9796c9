"""Requests against a model: masks, lengths, prompts, conditions, methods, defaults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export.package.schema import DataSpace
from serving.api.resolve.asked import Asked, Given, Rows, field_of
from serving.api.resolve.method import method_of, values_of
from serving.api.resolve.request import Rules, resolve
from serving.errors import FailedPrecondition, InvalidArgument
from serving.families.capability import Capability, Method, Parameter
from serving.families.request import Operation, Request, Value
from tests.serving.api.fake_models import CAPABILITIES, CLOUD, DIGITS, LATENT, LETTERS, SPECS

IMAGE = (1, 1, 8, 8)


def rules(name: str = DIGITS, **changes: Any) -> Rules:
    made = Rules(SPECS[name], CAPABILITIES[name], LATENT, max_rows=64, max_reply_bytes=0)
    return replace(made, **changes)


def field_refused(asked: Asked, against: Rules) -> str:
    with pytest.raises(InvalidArgument) as caught:
        resolve(asked, against)
    return caught.value.violations[0].field


def inpaint(observed: NDArray[np.bool_], data: NDArray[Any] | None = None, **fields: Any) -> Request:
    rows = Rows(np.full((2, 1, 8, 8), 5, np.uint8) if data is None else data)
    return resolve(Asked(Operation.INPAINT, data=rows, observed=observed, **fields), rules())


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (1, 1, 8, 8), (2, 1, 8, 8)])
def test_masks_spread_over_rows_and_channels(shape: tuple[int, ...]) -> None:
    mask = np.zeros(shape, np.bool_)
    mask[..., :3] = True
    observed = inpaint(mask).observed
    assert observed is not None
    assert observed.shape == (2, 1, 8, 8)
    assert observed[..., :3].all()
    assert not observed[..., 3:].any()


def test_picture_mask_follows_the_axes_of_the_data() -> None:
    space = DataSpace(kind="image", axes=("width", "height"), shape=(4, 6), dtype="uint8", levels=9)
    spec = SPECS[DIGITS].model_copy(update={"data": space})
    mask = np.zeros((6, 4), np.bool_)  # [height, width]
    mask[0] = True
    asked = Asked(Operation.INPAINT, data=Rows(np.ones((1, 4, 6), np.uint8)), observed=mask)
    observed = resolve(asked, rules(spec=spec)).observed
    assert observed is not None
    assert observed[0, :, 0].all()
    assert observed.sum() == 4


def test_hidden_entries_are_neither_checked_nor_passed_on() -> None:
    data = np.full((2, 1, 8, 8), 200, np.uint8)
    data[..., :3] = 5
    mask = np.zeros((8, 8), np.bool_)
    mask[:, :3] = True
    seen = inpaint(mask, data).data
    assert seen is not None
    assert not seen[..., 3:].any()
    mask[:, :4] = True
    with pytest.raises(InvalidArgument, match=r"outside 0\.\.16"):
        inpaint(mask, data)


def test_hidden_nan_is_not_read() -> None:
    space = DataSpace(kind="image", axes=("height", "width"), shape=(2, 2), dtype="float32")
    spec = SPECS[DIGITS].model_copy(update={"data": space})
    data = Rows(np.array([[[1.0, np.nan], [2.0, 3.0]]], np.float32))
    mask = np.array([[True, False], [True, True]])
    asked = Asked(Operation.INPAINT, data=data, observed=mask)
    seen = resolve(asked, rules(spec=spec)).data
    assert seen is not None
    assert seen[0, 0, 1] == 0.0
    assert field_refused(replace(asked, observed=np.ones((2, 2), np.bool_)), rules(spec=spec)) == "data"


def test_padding_beyond_lengths_is_zeroed_unread() -> None:
    ids = np.array([[5, 6, 9999], [7, -4, 3]], np.int32)
    asked = Asked(Operation.LIKELIHOOD, data=Rows(ids, np.array([2, 1], np.int32)))
    request = resolve(asked, rules(LETTERS))
    assert request.data is not None
    assert request.data.tolist() == [[5, 6, 0], [7, 0, 0]]
    assert field_refused(replace(asked, data=Rows(ids)), rules(LETTERS)) == "data"


@pytest.mark.parametrize("lengths", [[0, 1], [4, 1], [1]])
def test_lengths_must_fit_the_rows(lengths: list[int]) -> None:
    rows = Rows(np.ones((2, 3), np.int32), np.array(lengths, np.int32))
    assert field_refused(Asked(Operation.LIKELIHOOD, data=rows), rules(LETTERS)) == "data.lengths"


def test_absent_lengths_of_a_variable_space_mean_full_rows() -> None:
    request = resolve(Asked(Operation.LIKELIHOOD, data=Rows(np.ones((2, 3), np.int32))), rules(LETTERS))
    assert request.lengths is not None
    assert request.lengths.tolist() == [3, 3]


def test_one_prompt_serves_all_rows_and_many_decide_their_number() -> None:
    prompt = Rows(np.array([[1, 2]], np.int32))
    request = resolve(Asked(Operation.SAMPLE, data=prompt, n=3), rules(LETTERS))
    assert request.data is not None
    assert request.data.tolist() == [[1, 2]] * 3
    two = Rows(np.array([[1, 2], [3, 4]], np.int32))
    assert resolve(Asked(Operation.SAMPLE, data=two), rules(LETTERS)).rows == 2
    assert field_refused(Asked(Operation.SAMPLE, data=two, n=3), rules(LETTERS)) == "prompt"


def test_conditions_come_in_the_packages_order_with_null_where_absent() -> None:
    request = resolve(Asked(Operation.SAMPLE, n=2, conditions=(Given("label", None),)), rules())
    assert request.conditions["label"].tolist() == [10, 10]
    assert not request.given_conditions
    style = Given("style", np.array([[1.0, 2.0]], np.float32))
    request = resolve(Asked(Operation.SAMPLE, n=2, conditions=(style,)), rules(CLOUD))
    assert request.conditions["style"].tolist() == [[1.0, 2.0]] * 2
    twice = (Given("label", np.array([1])), Given("label", np.array([1])))
    assert field_refused(Asked(Operation.SAMPLE, conditions=twice), rules()) == "conditions[1].name"


def test_parameters_get_their_defaults_and_absent_ones_stay_absent() -> None:
    request = resolve(Asked(Operation.SAMPLE, choice="ddpm", parameters={"steps": 3}), rules())
    assert request.method == "ddpm"
    assert request.parameters == {"steps": 3, "guidance_scale": 1.0, "eta": 1.0}
    assert "max_new_tokens" not in resolve(Asked(Operation.SAMPLE), rules(LETTERS)).parameters


def test_choice_may_be_a_parameter_of_the_only_method() -> None:
    path = Parameter("path", "string", "slerp", choices=("slerp", "lerp"))
    capability = Capability(Operation.INTERPOLATE, (Method("latent", "EXACT", (path,), is_default=True),))
    method, given = method_of(Asked(Operation.INTERPOLATE, choice="lerp"), (capability,))
    assert values_of(Operation.INTERPOLATE, method, given) == {"path": "lerp"}
    with pytest.raises(InvalidArgument) as caught:
        values_of(Operation.INTERPOLATE, method, {"path": "scenic"})
    assert caught.value.violations[0].field == "path"


@pytest.mark.parametrize(
    ("kind", "value"),
    [("int", True), ("int", 1.5), ("bool", 1), ("string", 3), ("strings", "x"), ("float", "x")],
)
def test_values_of_another_type_are_refused(kind: Any, value: Value) -> None:
    method = Method("m", "EXACT", (Parameter("p", kind, None),), is_default=True)
    with pytest.raises(InvalidArgument, match="type"):
        values_of(Operation.SAMPLE, method, {"p": value})


def test_undefined_operation_is_a_failed_precondition_before_anything_else() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        resolve(Asked(Operation.LIKELIHOOD, choice="nonsense"), rules(CLOUD))
    assert caught.value.reason == "OPERATION_UNDEFINED"
    with pytest.raises(FailedPrecondition):
        resolve(Asked(Operation.ENCODE), rules(CLOUD))


def test_replies_that_outgrow_a_message_are_refused_with_the_way_out() -> None:
    asked = Asked(Operation.SAMPLE, n=10)
    with pytest.raises(InvalidArgument, match="streaming") as caught:
        resolve(asked, rules(max_reply_bytes=639))
    assert caught.value.violations[0].field == "n"
    resolve(asked, rules(max_reply_bytes=640))


def test_likelihood_reads_a_mask_only_where_the_method_lists_it() -> None:
    data, mask = Rows(np.ones(IMAGE, np.uint8)), np.ones((8, 8), np.bool_)
    asked = Asked(Operation.LIKELIHOOD, data=data, observed=mask)
    assert field_refused(asked, rules()) == "observed"
    observed = resolve(replace(asked, choice="marginal"), rules()).observed
    assert observed is not None
    assert observed.all()


def test_fields_lie_where_the_messages_have_them() -> None:
    assert field_of(Operation.SAMPLE, "steps") == "parameters.steps"
    assert field_of(Operation.ENCODE, "steps") == "steps"
    assert field_of(Operation.INPAINT, "steps") == "parameters.sampling.steps"
    assert field_of(Operation.INPAINT, "sweeps") == "parameters.sweeps"
    assert field_of(Operation.INTERPOLATE, "points") == "points"
