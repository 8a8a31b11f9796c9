from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pxserve import Client, PxserveError
from pxserve.arrays import DTYPES, from_tensor, to_tensor
from pxserve.v1 import data_pb2, likelihood_pb2, sample_pb2
from tests.client.fake_server import Script

ROWS = np.arange(128).reshape(2, 1, 8, 8) % 17


def sent(script: Script) -> Any:
    return script.last(likelihood_pb2.LikelihoodRequest).data


@given(st.sampled_from(list(DTYPES.values())).flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0))))
def test_tensors_round_trip_bit_for_bit(array: np.ndarray[Any, Any]) -> None:
    back = from_tensor(to_tensor(array))
    assert back.shape == array.shape
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable


def test_tensors_of_any_memory_order_and_endianness_travel_row_major_little_endian() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    tensor = to_tensor(array)
    assert np.frombuffer(tensor.data, "<i4").tolist() == [0, 3, 1, 4, 2, 5]
    assert from_tensor(tensor).tolist() == array.tolist()


@pytest.mark.parametrize(
    "tensor",
    [
        data_pb2.Tensor(dtype=data_pb2.DATA_TYPE_INT32, shape=[2], data=b"1234567"),
        data_pb2.Tensor(dtype=data_pb2.DATA_TYPE_UINT8, shape=[1 << 40]),
        data_pb2.Tensor(shape=[1], data=b"1"),
    ],
)
def test_replies_that_do_not_parse_are_errors(tensor: data_pb2.Tensor) -> None:
    with pytest.raises(PxserveError, match="does not parse"):
        from_tensor(tensor)


@pytest.mark.parametrize(
    "data", [ROWS.astype(np.uint8), ROWS, ROWS.astype(np.float64), ROWS.tolist(), ROWS.astype(np.int32)]
)
def test_whatever_holds_the_same_integers_is_sent_in_the_models_dtype(
    client: Client, script: Script, data: Any
) -> None:
    client.likelihood("digits", data)
    assert sent(script).tensor.dtype == data_pb2.DATA_TYPE_UINT8
    assert from_tensor(sent(script).tensor).tolist() == ROWS.tolist()


@pytest.mark.parametrize("data", [ROWS + 0.5, ROWS - 1, ROWS + 256, np.full(ROWS.shape, np.nan), ROWS + 0j])
def test_what_the_dtype_cannot_hold_is_refused_by_name(client: Client, data: Any) -> None:
    with pytest.raises(PxserveError) as caught:
        client.likelihood("digits", data)
    assert caught.value.field_violations[0].field == "data"


def test_an_array_of_the_shape_of_a_row_is_one_row(client: Client, script: Script) -> None:
    client.likelihood("digits", ROWS[0])
    assert sent(script).tensor.shape == [1, 1, 8, 8]


def test_lists_of_different_lengths_are_padded_and_counted(client: Client, script: Script) -> None:
    client.likelihood("text", [[1, 2, 3], [4]])
    assert from_tensor(sent(script).tensor).tolist() == [[1, 2, 3], [4, 0, 0]]
    assert list(sent(script).lengths) == [3, 1]
    client.likelihood("text", [1, 2, 3])
    assert sent(script).tensor.shape == [1, 3]
    assert not sent(script).lengths


def test_texts_and_png_files_travel_as_they_are(client: Client, script: Script) -> None:
    client.likelihood("text", "one")
    assert list(sent(script).texts.texts) == ["one"]
    client.likelihood("text", ["one", "two"])
    assert list(sent(script).texts.texts) == ["one", "two"]
    client.likelihood("digits", [b"\x89PNG"])
    assert list(sent(script).images.png) == [b"\x89PNG"]


def test_label_is_the_class_condition_whatever_its_name(client: Client, script: Script) -> None:
    def condition(**options: Any) -> data_pb2.Condition:
        client.sample("digits", **options)
        (only,) = script.last(sample_pb2.SampleRequest).conditions
        assert isinstance(only, data_pb2.Condition)
        return only

    assert condition(label=3) == data_pb2.Condition(name="digit", labels=data_pb2.Labels(ids=[3]))
    assert list(condition(label=np.array([1, 2], np.uint8)).labels.ids) == [1, 2]
    assert list(condition(conditions={"digit": [4]}).labels.ids) == [4]
    assert condition(conditions={"digit": None}).use_null
    assert condition(conditions={"embedding": np.zeros((1, 2))}).tensor.dtype == data_pb2.DATA_TYPE_FLOAT32
    assert list(condition(conditions={"caption": "a cat"}).texts.texts) == ["a cat"]
    with pytest.raises(PxserveError, match="given twice"):
        client.sample("digits", label=1, conditions={"digit": 2})


def test_masks_are_true_or_false(client: Client, script: Script) -> None:
    client.likelihood("digits", ROWS, observed=np.eye(8, dtype=int))
    observed = script.last(likelihood_pb2.LikelihoodRequest).observed
    assert from_tensor(observed).tolist() == np.eye(8, dtype=bool).tolist()
    with pytest.raises(PxserveError, match="observed"):
        client.likelihood("digits", ROWS, observed=np.full((8, 8), 2))


@pytest.mark.parametrize(
    ("name", "value"), [("seed", -1), ("seed", 1 << 64), ("first_row", -1), ("steps", 1 << 40)]
)
def test_numbers_out_of_their_fields_range_are_refused_by_name(client: Client, name: str, value: int) -> None:
    with pytest.raises(PxserveError) as caught:
        client.sample("digits", **{name: value})  # type: ignore[arg-type]
    assert caught.value.field_violations[0].field == name


def test_unknown_words_are_refused_with_the_known_ones(client: Client) -> None:
    with pytest.raises(PxserveError, match="none, uniform, importance"):
        client.likelihood("digits", ROWS, dequantization="variational")
