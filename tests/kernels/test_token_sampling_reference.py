"""sample_tokens on CPU: kept sets, laws and tokens against a full sort in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from kernels.philox import STREAM_TOKEN
from kernels.token_sampling import sample_tokens
from tests.kernels import cases, oracle
from tests.kernels.cases import Maker

SETTINGS = list(itertools.product((1.0, 0.5, 1.7, 0.0), (0, 1, 3, 50), (1.0, 0.9, 0.3, 0.0), (0.0, 0.1)))


def sample(
    logits: torch.Tensor,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    position: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = len(logits)
    heat, count, mass, share = (torch.full((rows,), value) for value in (temperature, top_k, top_p, min_p))
    index = torch.arange(rows)
    seed, line = torch.full_like(index, 11), torch.full_like(index, position)
    return sample_tokens(logits, heat, count, mass, share, seed, index, line)


@pytest.mark.parametrize("size", [2, 7, 64, 1000, 9001])
def test_tokens_and_log_probabilities_equal_the_sort_in_float64(size: int) -> None:
    make = Maker(size)
    logits = make.normal(4, size) * 3
    if size < 100:
        logits = (logits * 2).round() / 2  # ties
    for temperature, top_k, top_p, min_p in SETTINGS[:: 1 if size < 9000 else 5]:
        token, raw, processed = sample(logits, temperature, top_k, top_p, min_p)
        for row in range(4):
            wide = logits[row].double().numpy()
            _, law = oracle.kept_tokens(wide, temperature or 1.0, top_k, top_p, min_p)
            draws = oracle.uniforms((11, row, 0, STREAM_TOKEN), size) if size < 2000 else None
            if draws is not None:
                assert token[row] == oracle.token(wide, law, temperature, draws)
            assert raw[row] == pytest.approx(oracle.log_softmax(wide)[token[row]], abs=3e-6)
            expected = np.log(law[token[row]]) if temperature else 0.0
            assert processed[row] == pytest.approx(expected, abs=3e-6)


@pytest.mark.parametrize("size", [1, 40, 1000, 9001, 50_257])
def test_a_row_alone_equals_the_row_in_any_batch(size: int) -> None:
    case = cases.sampling_case(9, size, torch.float32, Maker(size))
    batch = case.reference(*case.operands)
    for index in range(9):
        alone = case.reference(*case.of_rows(torch.tensor([index])))
        for one, whole in zip(alone, batch, strict=True):
            assert torch.equal(one[0], whole[index])


def test_draws_follow_the_law() -> None:
    size, draws = 50, 40_000
    logits = (torch.randn(1, size, generator=torch.Generator().manual_seed(0)) * 1.5).expand(draws, size)
    for top_k, top_p in ((0, 1.0), (20, 1.0), (0, 0.8)):
        token, _, _ = sample(logits, top_k=top_k, top_p=top_p)
        kept, law = oracle.kept_tokens(logits[0].double().numpy(), 1.0, top_k, top_p, 0.0)
        counts = np.bincount(token.numpy(), minlength=size)
        assert not counts[~kept].any()
        likely = law * draws >= 5
        observed = np.append(counts[likely], counts[~likely].sum())
        expected = np.append(law[likely], law[~likely].sum()) * draws
        present = expected > 0
        assert stats.chisquare(observed[present], expected[present]).pvalue > 1e-3


def test_a_filter_that_removes_others_does_not_change_the_winner() -> None:
    """Noise belongs to the token, so the unfiltered winner wins under every filter that keeps it."""
    logits = Maker(3).normal(64, 500)
    free, _, _ = sample(logits)
    limited, _, _ = sample(logits, top_k=100)
    rank = (logits > logits.gather(1, free[:, None])).sum(1)
    kept = rank < 100
    assert kept.any()
    assert torch.equal(limited[kept], free[kept])
    assert not torch.equal(limited, free)


def test_positions_and_particles_draw_their_own_noise() -> None:
    logits = torch.zeros(32, 1000)
    first, _, _ = sample(logits)
    assert torch.equal(first, sample(logits)[0])
    assert not torch.equal(first, sample(logits, position=1)[0])
    assert len(set(first.tolist())) > 24


def test_temperature_zero_takes_the_lowest_of_equal_maxima() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0, 2.0]])
    token, raw, processed = sample(logits, temperature=0.0)
    assert (int(token), float(processed)) == (1, 0.0)
    assert float(raw) == pytest.approx(float(torch.log_softmax(logits, 1)[0, 1]), abs=1e-6)


def test_ties_with_the_kth_token_are_kept() -> None:
    logits = torch.tensor([[3.0, 1.0, 1.0, 1.0, 0.0]]).expand(2000, 5)
    token, _, _ = sample(logits, top_k=2)
    assert set(token.tolist()) == {0, 1, 2, 3}


def test_half_precision_logits_are_drawn_from_as_their_float32_values() -> None:
    logits = (Maker(5).normal(8, 300) * 3).to(torch.bfloat16)
    for one, other in zip(sample(logits, top_k=20), sample(logits.float(), top_k=20), strict=True):
        assert torch.equal(one, other)


def test_nan_stays_in_its_row() -> None:
    logits = Maker(6).normal(3, 200)
    for top_k, top_p in ((0, 1.0), (5, 1.0), (0, 0.5)):
        clean = sample(logits, top_k=top_k, top_p=top_p)
        broken = logits.clone()
        broken[1] = torch.nan
        token, raw, processed = sample(broken, top_k=top_k, top_p=top_p)
        assert 0 <= int(token[1]) < 200
        assert raw[1].isnan()
        assert processed[1].isnan()
        assert torch.equal(token[[0, 2]], clean[0][[0, 2]])
