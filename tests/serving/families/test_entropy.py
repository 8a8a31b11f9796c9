"""Entropy maps of draws, and which completions offer them."""

from __future__ import annotations

import numpy as np
import pytest

from serving.families.entropy import entropy_of_draws
from serving.families.request import Operation
from serving.families.result import Completed
from tests.analytic.diffusion.gaussian import (
    COVARIANCE,
    MEAN,
    GaussianDenoiser,
    answer,
    diffusion,
    family_of,
    levels_space,
    request,
    vectors,
)


def test_entropy_of_weighted_draws_is_that_of_their_shares() -> None:
    draws = np.array([[[0, 2], [1, 2], [0, 2], [3, 2]]])
    found = entropy_of_draws(draws, np.array([[0.2, 0.5, 0.2, 0.1]]))
    expected = -(0.4 * np.log(0.4) + 0.5 * np.log(0.5) + 0.1 * np.log(0.1))
    assert found.dtype == np.float32
    assert found[0, 0] == pytest.approx(expected, rel=1e-6)
    assert found[0, 1] == 0.0


def test_plug_in_entropy_is_low_by_as_much_as_miller_says() -> None:
    rng = np.random.default_rng(7)
    draws = rng.integers(0, 4, (4000, 50, 1))
    low = np.log(4.0) - entropy_of_draws(draws).mean()
    assert low == pytest.approx(3 / (2 * 50), rel=0.1)


@pytest.mark.parametrize("method", ["smc", "replacement"])
def test_completions_of_levels_have_an_entropy_map(method: str) -> None:
    section = diffusion("flow")
    network, family = GaussianDenoiser(section, MEAN, COVARIANCE), family_of(section, levels_space(2))
    asked = request(
        Operation.INPAINT, method, 1, data=np.array([[12, 0]], np.uint8),
        observed=np.array([[True, False]]), completions=200,
        parameters={"steps": 20, "particles": 8, "entropy": True},
    )  # fmt: skip
    result = answer(family, network, asked)
    assert isinstance(result, Completed)
    assert result.entropy is not None
    assert result.entropy[0, 0] == 0.0
    assert 0.5 < result.entropy[0, 1] < np.log(17)
    if method == "replacement":
        share = np.bincount(result.data[0, :, 1]) / 200
        expected = -(share[share > 0] * np.log(share[share > 0])).sum()
        assert result.entropy[0, 1] == pytest.approx(expected, rel=1e-5)


def test_real_data_have_none() -> None:
    def offered(levels: bool) -> set[str]:
        family = family_of(diffusion("flow"), levels_space(2) if levels else vectors())
        completes = next(c for c in family.capabilities() if c.operation is Operation.INPAINT)
        return {p.name for method in completes.methods for p in method.parameters}

    assert "entropy" in offered(levels=True)
    assert "entropy" not in offered(levels=False)
