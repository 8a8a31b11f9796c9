"""Dynamic thresholding: the paper's rule, row by row, the same on both ways of advancing."""

from __future__ import annotations

import numpy as np
import torch

from serving.families.diffusion.family import DiffusionFamily
from serving.families.diffusion.table import DenoiseTable
from serving.families.diffusion.threshold import thresholded
from serving.families.drive import run_alone
from serving.families.request import Operation
from serving.families.result import Sampled, SampleKind
from tests.analytic.diffusion.gaussian import (
    COVARIANCE,
    MEAN,
    GaussianDenoiser,
    diffusion,
    family_of,
    levels_space,
    request,
    vectors,
)

SECTION = diffusion("vp", clip_range=(-1.0, 1.0))
NETWORK = GaussianDenoiser(SECTION, MEAN, 16.0 * COVARIANCE)  # estimates often leave the range
ROWS = 24


def _column(value: float, rows: int = 2) -> np.ndarray:
    return np.full((rows, 1), value, np.float32)


def test_rows_are_bounded_by_their_own_quantile_and_scaled_back() -> None:
    x0 = np.array([[0.5, -3.0, 2.0, 1.0], [0.5, -0.3, 0.2, 0.1]], np.float32)
    found = thresholded(x0, np.array([0.5, 0.5], np.float32), _column(-1.0), _column(1.0))
    np.testing.assert_allclose(found[0], [0.5 / 1.5, -1.0, 1.0, 1.0 / 1.5], rtol=1e-6)
    np.testing.assert_array_equal(found[1], x0[1])  # inside the range: nothing is done
    moved = thresholded(x0 * 2 + 3, np.array([0.5, 0.5], np.float32), _column(1.0), _column(5.0))
    np.testing.assert_allclose(moved, found * 2 + 3, rtol=1e-6)


def _sampled(rows: int, **parameters: float) -> Sampled:
    family = DiffusionFamily(family_of(SECTION, levels_space(2)).spec)
    tables = family.tables({}, rows, torch.device("cpu"))
    table = tables["denoise"]
    assert isinstance(table, DenoiseTable)
    asked = request(Operation.SAMPLE, "ddim", rows, parameters={"steps": 8, **parameters})
    result = run_alone(family.program(asked), {"denoiser": NETWORK}, tables)
    assert isinstance(result, Sampled)
    return result


def test_samples_change_and_rows_do_not_depend_on_their_neighbours() -> None:
    plain, clipped = _sampled(ROWS), _sampled(ROWS, clip=True)
    bounded = _sampled(ROWS, dynamic_threshold=0.6)
    assert plain.kind is SampleKind.DISCRETIZED
    assert bounded.kind is SampleKind.MODIFIED
    assert (bounded.data != plain.data).any()
    assert (bounded.data != clipped.data).any()
    np.testing.assert_array_equal(_sampled(5, dynamic_threshold=0.6).data, bounded.data[:5])


def test_it_is_offered_to_images_with_a_range() -> None:
    def names(family: DiffusionFamily) -> set[str]:
        return {p.name for method in family.capabilities()[0].methods for p in method.parameters}

    assert "dynamic_threshold" in names(family_of(SECTION, levels_space(2)))
    assert "dynamic_threshold" not in names(family_of(SECTION, vectors()))
    assert "dynamic_threshold" not in names(family_of(diffusion("vp"), levels_space(2)))
