"""Noise on CPU: the layout word for word, the laws, and independence of how rows are batched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from kernels import _elementary, _philox_cpu, philox
from tests.kernels import oracle

SIZES = (1, 2, 3, 7, 31, 32, 33, 100, 784, 1000, 3073, 50_257)


def counters(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    drawn = np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, (4, rows))
    return torch.unbind(torch.from_numpy(drawn))  # type: ignore[return-value]


def test_generator_gives_the_published_known_answers() -> None:
    zero = torch.zeros(1, dtype=torch.int64)
    words = philox.philox_words(zero, zero, zero, 0, 32).reshape(4, 8)
    assert words[:, 0].tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = ~zero
    assert oracle.philox4x32((oracle.MASK,) * 4, (oracle.MASK,) * 2) == (
        0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD,
    )  # fmt: skip
    assert philox.philox_words(ones, ones, ones, ones, 9).tolist() == [oracle.words((-1, -1, -1, -1), 9)]


@pytest.mark.parametrize("n", [1, 5, 33, 77])
def test_words_and_uniforms_follow_the_layout_bit_for_bit(n: int) -> None:
    seed, row, line, stream = counters(5)
    words = philox.philox_words(seed, row, line, stream, n)
    uniform = philox.philox_uniform(seed, row, line, stream, n)
    for index, counter in enumerate(torch.stack((seed, row, line, stream), dim=1).tolist()):
        assert words[index].tolist() == oracle.words(counter, n)
        expected = oracle.uniforms(counter, n).astype(np.float32)
        np.testing.assert_allclose(uniform[index].numpy(), expected, rtol=1.2e-7)


def test_uniforms_lie_in_the_half_open_unit_interval() -> None:
    words = np.array([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF], np.uint32)
    uniform = _philox_cpu.uniform_from_words(words)
    assert uniform.min() == 0.0
    assert uniform.max() < 1.0


@pytest.mark.parametrize("n", [2, 33, 257])
def test_normals_are_box_muller_within_1e_6(n: int) -> None:
    seed, row, line, stream = counters(3, seed=1)
    drawn: NDArray[np.float32] = philox.philox_normal(seed, row, line, stream, n).numpy()
    for index, counter in enumerate(torch.stack((seed, row, line, stream), dim=1).tolist()):
        np.testing.assert_allclose(drawn[index], oracle.normals(counter, n), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("n", SIZES)
def test_a_row_alone_equals_the_row_in_any_batch(n: int) -> None:
    rows = 1 + min(40, 400_000 // n)
    seed, row, line, stream = counters(rows, seed=n)
    batch = philox.philox_normal(seed, row, line, stream, n)
    for index in {0, rows // 3, rows - 1}:
        one = slice(index, index + 1)
        assert torch.equal(
            philox.philox_normal(seed[one], row[one], line[one], stream[one], n)[0], batch[index]
        )


@pytest.mark.parametrize("n", [2, 50, 9000])
def test_several_plan_lines_in_one_call_equal_one_by_one(n: int) -> None:
    seed, row, line, _ = counters(4, seed=3)
    lines = torch.stack([line, line + 1, line + 7], dim=1)
    drawn = philox.philox_normal(seed, row, lines, philox.STREAM_STEP, n)
    assert drawn.shape == (4, 3, n)
    for column in range(3):
        alone = philox.philox_normal(seed, row, lines[:, column], philox.STREAM_STEP, n)
        assert torch.equal(drawn[:, column], alone)


def test_single_elements_equal_their_row() -> None:
    seed, row, line, stream = counters(6, seed=4)
    n, element = 1000, torch.tensor([0, 249, 250, 256, 768, 999])
    whole = philox.philox_uniform(seed, row, line, stream, n)
    alone = philox.philox_uniform_at(seed, row, line, stream, n, element)
    assert torch.equal(alone, whole.gather(1, element[:, None])[:, 0])


def test_no_rows_and_no_elements_are_allowed() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    one = torch.zeros(1, dtype=torch.int64)
    assert philox.philox_normal(none, none, none, 1, 5).shape == (0, 5)
    assert philox.philox_uniform(one, one, one, 1, 0).shape == (1, 0)
    assert philox.philox_normal(one, one, torch.zeros(1, 0, dtype=torch.int64), 1, 5).shape == (1, 0, 5)


def test_normals_pass_kolmogorov_smirnov_and_have_unit_moments() -> None:
    rows = torch.arange(64)
    drawn = (
        philox.philox_normal(torch.full_like(rows, 5), rows, torch.zeros_like(rows), 1, 16_384)
        .numpy()
        .ravel()
    )
    count = drawn.size
    assert abs(drawn.mean()) < 4 / np.sqrt(count)
    assert abs(drawn.var() - 1) < 4 * np.sqrt(2 / count)
    assert abs(stats.kurtosis(drawn)) < 4 * np.sqrt(24 / count)
    assert stats.kstest(drawn[:200_000], "norm").pvalue > 1e-3


def test_neighbouring_counters_are_uncorrelated() -> None:
    rows = torch.arange(512)
    zero = torch.zeros_like(rows)
    base = philox.philox_normal(zero, rows, zero, 1, 512).ravel()
    others = (
        philox.philox_normal(zero + 1, rows, zero, 1, 512).ravel(),
        philox.philox_normal(zero, rows + 1, zero, 1, 512).ravel(),
        philox.philox_normal(zero, rows, zero + 1, 1, 512).ravel(),
        philox.philox_normal(zero, rows, zero, 2, 512).ravel(),
        base.roll(1),
    )
    for index, other in enumerate(others):
        same_draws = index == 1
        if not same_draws:
            assert abs(float((base * other).mean())) < 5 / np.sqrt(len(base))
    assert torch.equal(others[1].reshape(512, 512)[:-1], base.reshape(512, 512)[1:])


def test_elementary_functions_are_accurate_to_their_stated_errors() -> None:
    rng = np.random.default_rng(0)
    x = np.exp(rng.uniform(np.log(2.4e-10), np.log(30), 200_000)).astype(np.float32)
    exact = np.log(x.astype(np.float64))
    spacing = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    assert np.max(np.abs(_elementary.log(x) - exact) / spacing) < 1.3
    turns = np.append(rng.uniform(0, 1, 200_000), [0, 0.25, 0.5, 0.75, 1]).astype(np.float32)
    cosine, sine = _elementary.cos_sin(turns)
    angle = 2 * np.pi * turns.astype(np.float64)
    assert np.max(np.abs(cosine - np.cos(angle))) < 5e-7
    assert np.max(np.abs(sine - np.sin(angle))) < 5e-7
