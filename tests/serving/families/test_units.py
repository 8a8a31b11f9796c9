from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from export.package.schema import Affine, DataSpace, Identity
from serving.families import units

IMAGE = DataSpace(
    kind="image",
    axes=("channel", "height", "width"),
    shape=(2, 2, 3),
    dtype="uint8",
    levels=17,
    transform=Affine(scale=(0.125, -0.25), shift=(-1.0, 2.0)),
)
GREY = IMAGE.model_copy(update={"transform": Affine(scale=(0.125,), shift=(-1.0,))})
VECTOR = DataSpace(
    kind="vector", axes=("d",), shape=(3,), dtype="float32", transform=Affine(scale=(2.0,), shift=(1.0,))
)
TOKENS = DataSpace(
    kind="tokens",
    axes=("position",),
    shape=(-1,),
    dtype="int32",
    levels=5,
    max_length=4,
    transform=Identity(),
)


def test_every_level_survives_the_round_trip() -> None:
    data = np.arange(17, dtype=np.uint8).repeat(12).reshape(17, 2, 2, 3)
    again = units.to_data(IMAGE, units.to_model(IMAGE, data, torch.device("cpu")))
    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again, data)


def test_levels_round_half_up_and_clamp() -> None:
    model = torch.tensor([[-9.0, 0.49, 0.5], [1.5, 2.5, 99.0]]).expand(1, 2, 2, 3) * 0.125 - 1.0
    np.testing.assert_array_equal(units.to_data(GREY, model)[0, 0], [[0, 0, 1], [2, 3, 16]])


def test_scales_run_along_the_channel_axis() -> None:
    model = units.to_model(IMAGE, np.full((1, 2, 2, 3), 4, np.uint8), torch.device("cpu"))
    assert model.dtype == torch.float32
    assert bool((model[0, 0] == -0.5).all())
    assert bool((model[0, 1] == 1.0).all())


def test_tokens_keep_their_ids() -> None:
    ids = np.array([[3, 1, 4]], np.int32)
    model = units.to_model(TOKENS, ids, torch.device("cpu"))
    assert model.dtype == torch.int64
    np.testing.assert_array_equal(units.to_data(TOKENS, model), ids)
    assert units.log_abs_det(TOKENS) == 0.0


def test_a_density_moves_with_the_scale() -> None:
    data = np.array([[0.3, -1.0, 2.0]], np.float32)
    model = units.to_model(VECTOR, data, torch.device("cpu")).double().numpy()
    log_model = -0.5 * (model**2).sum() - 1.5 * math.log(2 * math.pi)
    spread, mean = 0.5, -0.5  # of the data, where 2 d + 1 is standard normal
    log_data = (-0.5 * ((data - mean) / spread) ** 2 - math.log(spread) - 0.5 * math.log(2 * math.pi)).sum()
    assert log_model + units.log_abs_det(VECTOR) == pytest.approx(log_data, abs=1e-6)


def test_log_abs_det_counts_every_element_of_a_channel() -> None:
    assert units.log_abs_det(IMAGE) == pytest.approx(6 * math.log(0.125) + 6 * math.log(0.25))
    assert units.log_abs_det_map(IMAGE).sum() == pytest.approx(units.log_abs_det(IMAGE))


def test_bits_per_dim_of_eight_bit_images_gain_the_known_offset() -> None:
    eight = DataSpace(
        kind="image", axes=("channel",), shape=(1,), dtype="uint8", levels=256,
        transform=Affine(scale=(1 / 127.5,), shift=(-1.0,)),
    )  # fmt: skip
    assert units.bits(units.log_abs_det(eight), 1) == pytest.approx(math.log2(127.5))


def test_level_width_is_one_number_or_an_error() -> None:
    assert units.level_width(GREY) == 0.125
    with pytest.raises(ValueError, match="different scales"):
        units.level_width(IMAGE)


def test_dequantised_points_round_back_to_their_level() -> None:
    data = np.arange(1, 13, dtype=np.uint8).reshape(1, 2, 2, 3)
    model = units.to_model(IMAGE, data, torch.device("cpu"))
    for uniform in (1e-6, 0.5, 1 - 1e-6):
        points = units.dequantize(IMAGE, model, torch.full_like(model, uniform))
        np.testing.assert_array_equal(units.to_data(IMAGE, points), data)


def test_importance_weighted_dequantisation_integrates_the_cell() -> None:
    cells, width = 4096, 0.125
    uniforms = (np.arange(cells) + 0.5) / cells
    points = units.dequantize(
        GREY, torch.zeros(cells, 1, 1, 1), torch.tensor(uniforms, dtype=torch.float32)[:, None, None, None]
    )
    density = -0.5 * points.double().flatten().numpy() ** 2 - 0.5 * math.log(2 * math.pi)
    mass = units.log_mean_exp(density).value + math.log(width)
    assert mass == pytest.approx(math.log(math.erf(width / 2 / math.sqrt(2))), abs=1e-7)


def test_equal_weights_have_no_error_and_full_effective_size() -> None:
    value, error, ess = units.log_mean_exp(np.full((2, 7), -1e4))
    np.testing.assert_allclose(value, -1e4)
    np.testing.assert_array_equal(error, 0.0)
    np.testing.assert_allclose(ess, 7.0)


def test_weights_match_the_delta_method_along_any_axis() -> None:
    weights = np.array([[1.0, 2.0, 3.0], [4.0, 4.0, 1.0]])
    value, error, ess = units.log_mean_exp(np.log(weights).T, axis=0)
    np.testing.assert_allclose(value, np.log(weights.mean(axis=1)))
    np.testing.assert_allclose(error, weights.std(axis=1, ddof=1) / np.sqrt(3) / weights.mean(axis=1))
    np.testing.assert_allclose(ess, weights.sum(axis=1) ** 2 / (weights**2).sum(axis=1))


def test_no_weight_at_all_is_minus_infinity() -> None:
    value, error, ess = units.log_mean_exp(np.full((1, 4), -np.inf))
    assert value[0] == -np.inf
    assert np.isnan(error[0])
    assert ess[0] == 0.0


def test_one_weight_has_no_standard_error() -> None:
    value, error, ess = units.log_mean_exp(np.array([[-3.0]]))
    assert (value[0], ess[0]) == (-3.0, 1.0)
    assert np.isnan(error[0])


def test_rms_is_per_row() -> None:
    a = np.array([[0, 0], [3, 4]], np.uint8)
    np.testing.assert_allclose(units.rms_difference(a, np.zeros_like(a)), [0.0, math.sqrt(12.5)])
