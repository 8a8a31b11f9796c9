from __future__ import annotations

import numpy as np
import pytest
import torch

from kernels.philox import STREAM_LATENT, philox_normal
from serving.families.latent.evaluator import row_sum
from serving.families.latent.lanes import Lanes
from serving.families.latent.paths import lerp, slerp
from serving.families.latent.resampling import choose
from serving.families.request import Operation, Request

CPU = torch.device("cpu")


def request(rows: int, first_row: int = 0, seed: int = 9) -> Request:
    return Request(Operation.SAMPLE, "", {}, seed, first_row, rows)


def test_noise_is_addressed_by_seed_row_line_stream_and_particle() -> None:
    lanes = Lanes.of(request(3, first_row=10), 2, CPU, first=5)
    drawn = lanes.normal(STREAM_LATENT, 7, 6)
    one = torch.ones(1, dtype=torch.int64)
    expected = philox_normal(9 * one, 12 * one, 7 * one, STREAM_LATENT + 16 * 6, 6)
    torch.testing.assert_close(drawn[5:], expected, rtol=0, atol=0)


def test_noise_does_not_depend_on_how_many_there_are() -> None:
    whole = Lanes.of(request(4), 8, CPU).normal(0, 0, 5).reshape(4, 8, 5)
    few = Lanes.of(request(2, first_row=1), 3, CPU, first=2).normal(0, 0, 5).reshape(2, 3, 5)
    torch.testing.assert_close(whole[1:3, 2:5], few, rtol=0, atol=0)
    chosen = Lanes.of(request(4), 8, CPU, rows=torch.tensor([3])).normal(0, 0, 5)
    torch.testing.assert_close(whole[3], chosen, rtol=0, atol=0)


def test_seeds_use_all_of_their_bits() -> None:
    seeds = (0, 1, 1 << 40, (1 << 64) - 1)
    draws = {tuple(Lanes.of(request(1, seed=seed), 1, CPU).uniform(0, 0, 4)[0].tolist()) for seed in seeds}
    assert len(draws) == 4


def test_a_row_adds_up_alone_as_among_others() -> None:
    values = torch.randn(7, 3, 128, 130, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    together = row_sum(values)
    for row in range(7):
        assert row_sum(values[row : row + 1])[0] == together[row]


def test_slerp_keeps_the_norm_and_ends() -> None:
    start, end = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    walk = slerp(start, end, 5)
    np.testing.assert_allclose(walk.norm(dim=-1).numpy(), 2.0, atol=1e-6)
    torch.testing.assert_close(walk[0, 0], start[0])
    torch.testing.assert_close(walk[0, 4], end[0])
    torch.testing.assert_close(lerp(start, end, 3)[0, 1], torch.tensor([1.0, 1.0]))


@pytest.mark.parametrize("end", [[1.0, 2.0], [2.0, 4.0], [-1.0, -2.0], [0.0, 0.0]])
def test_slerp_of_one_direction_is_a_straight_line(end: list[float]) -> None:
    start = torch.tensor([[1.0, 2.0]])
    torch.testing.assert_close(slerp(start, torch.tensor([end]), 4), lerp(start, torch.tensor([end]), 4))


def test_particles_are_chosen_by_weight() -> None:
    log_weights = torch.tensor([[0.0, np.log(3.0), -np.inf, np.log(4.0)]], dtype=torch.float64) + 900.0
    uniforms = torch.tensor([[0.0, 0.1249, 0.126, 0.499, 0.501, 0.9999]])
    assert choose(log_weights, uniforms).tolist() == [[0, 0, 1, 1, 3, 3]]
    assert choose(torch.full((1, 3), -torch.inf), uniforms).max() <= 2
