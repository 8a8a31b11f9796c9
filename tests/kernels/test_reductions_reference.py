"""Log-probabilities, likelihoods, attention and images on CPU against float64 and libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from kernels.attention import decode_attention
from kernels.image import image_to_uint8
from kernels.likelihood import categorical_log_prob, gaussian_log_weight, log_mean_exp, row_log_prob
from kernels.linear_logprob import linear_logprob
from kernels.logprobs import gather_logprobs
from tests.kernels import cases, oracle
from tests.kernels.cases import Case, Maker

CASES = [
    cases.logprob_case(9, 1000, 3, torch.float32, Maker(1)),
    cases.logprob_case(5, 50_257, 1, torch.float32, Maker(2)),
    cases.linear_case(37, 9000, 64, torch.float32, Maker(3)),
    cases.attention_case(7, (8, 2), 300, 64, torch.float32, Maker(4)),
    cases.image_case((5, 3, 9, 7), torch.float32, Maker(5)),
    *cases.likelihood_cases(5, 3, 1000, Maker(6)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_row_alone_equals_the_row_in_any_batch(case: Case) -> None:
    batch = cases.results(case.reference(*case.operands))
    for index in torch.tensor([[0], [case.rows // 2], [case.rows - 1]]):
        alone = cases.results(case.reference(*case.of_rows(index)))
        for one, whole in zip(alone, batch, strict=True):
            torch.testing.assert_close(one, whole[index], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("size", [1, 7, 1000, 50_257])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gathered_log_probabilities_equal_log_softmax(size: int, dtype: torch.dtype) -> None:
    logits = (Maker(size).normal(4, size) * 4).to(dtype)
    ids = torch.tensor([[0, size - 1]]).expand(4, 2)
    expected = oracle.log_softmax(logits.double().numpy())[:, [0, size - 1]]
    np.testing.assert_allclose(gather_logprobs(logits, ids), expected, atol=3e-6)


def test_excluded_tokens_have_log_probability_minus_infinity() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0]])
    assert gather_logprobs(logits, torch.tensor([[1, 2]])).tolist() == [
        [-math.inf, pytest.approx(-math.log(2))]
    ]


@pytest.mark.parametrize("ids", [[[5]], [[-1]]])
def test_ids_outside_the_vocabulary_are_refused(ids: list[list[int]]) -> None:
    with pytest.raises(IndexError):
        gather_logprobs(torch.zeros(1, 5), torch.tensor(ids))
    with pytest.raises(IndexError):
        linear_logprob(torch.zeros(1, 4), torch.zeros(5, 4), torch.tensor(ids[0]))


@pytest.mark.parametrize("bias", [False, True])
def test_linear_log_probabilities_equal_those_of_the_logits(bias: bool) -> None:
    hidden, weight, target, offset = cases.linear_case(21, 9000, 48, torch.float32, Maker(7)).operands
    logits = hidden.double() @ weight.double().T + (offset.double() if bias else 0.0)
    expected = oracle.log_softmax(logits.numpy())[np.arange(21), target]
    actual = linear_logprob(hidden, weight, target, offset if bias else None)
    np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.parametrize("heads", [(4, 4), (8, 2), (5, 1)])
def test_attention_equals_torch_s_with_a_mask(heads: tuple[int, int]) -> None:
    query, keys, values, lengths, slots = cases.attention_case(
        4, heads, 37, 32, torch.float32, Maker(8)
    ).operands
    lengths = lengths.clamp_min(1)
    mask = torch.arange(37)[None] < lengths[:, None]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query[:, :, None].double(),
        keys[slots].double(),
        values[slots].double(),
        mask[:, None, None],
        enable_gqa=True,
    )[:, :, 0]
    actual = decode_attention(query, keys, values, lengths, slots)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-6)


def test_entries_past_a_row_s_length_are_never_used() -> None:
    query, keys, values, lengths, slots = cases.attention_case(
        3, (4, 2), 20, 16, torch.float32, Maker(9)
    ).operands
    before = decode_attention(query, keys, values, lengths, slots)
    for row, (slot, length) in enumerate(zip(slots.tolist(), lengths.tolist(), strict=True)):
        keys[slot, :, length:], values[slot, :, length:] = torch.nan, torch.nan
        assert length or not before[row].any()
    assert torch.equal(decode_attention(query, keys, values, lengths, slots), before)


def test_gaussian_rows_equal_scipy() -> None:
    x, mean, log_scale = (Maker(seed).normal(4, 50) for seed in (1, 2, 3))
    expected = stats.norm.logpdf(x.double(), mean.double(), log_scale.double().exp()).sum(1)
    np.testing.assert_allclose(row_log_prob(x, mean, log_scale, "gaussian"), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "law"), [("discretized_gaussian", stats.norm), ("discretized_logistic", stats.logistic)]
)
def test_discretised_levels_sum_to_one_and_equal_scipy(kind: str, law: stats.rv_continuous) -> None:
    levels = torch.arange(16.0)[:, None]
    mean, spread = torch.full((16, 1), 4.3), torch.full((16, 1), 0.4)
    log_mass = row_log_prob(levels, mean, spread, kind, 0.5, 0.0, 15.0)
    edges = law.cdf(np.arange(1, 16) - 0.5, np.float32(4.3), np.exp(np.float64(np.float32(0.4))))
    np.testing.assert_allclose(log_mass.exp(), np.diff(edges, prepend=0.0, append=1.0), atol=1e-14)
    assert float(log_mass.exp().sum()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("kind", ["discretized_gaussian", "discretized_logistic"])
def test_far_tails_keep_their_digits(kind: str) -> None:
    x, mean, spread = torch.tensor([[200.0]]), torch.tensor([[100.0]]), torch.tensor([[0.0]])
    value = float(row_log_prob(x, mean, spread, kind, 0.5, 0.0, 255.0))
    logistic = -99.5 + math.log(-math.expm1(-1.0))
    assert value == pytest.approx(
        logistic if kind == "discretized_logistic" else stats.norm.logsf(99.5), rel=1e-9
    )


def test_bernoulli_and_categorical_agree_on_two_levels() -> None:
    x = Maker(1).below(2, 3, 40)
    logits = Maker(2).normal(6, 40)
    both = torch.stack((torch.zeros_like(logits), logits), dim=1)
    bernoulli = row_log_prob(x.float(), logits, None, "bernoulli")
    np.testing.assert_allclose(categorical_log_prob(both, x), bernoulli, rtol=1e-12)


def test_unknown_kind_of_law_is_refused() -> None:
    with pytest.raises(ValueError, match="kind"):
        row_log_prob(torch.zeros(1, 1), torch.zeros(1, 1), None, "poisson")


def test_importance_weights_equal_the_densities() -> None:
    z, mean, log_variance, likelihood = cases.likelihood_cases(3, 4, 6, Maker(3))[5].operands
    sd = (0.5 * log_variance.double()).exp().unsqueeze(1).numpy()
    latent = z.double().numpy()
    posterior = stats.norm.logpdf(latent, mean.double().unsqueeze(1).numpy(), sd).sum(2)
    expected = likelihood.numpy() + stats.norm.logpdf(latent).sum(2) - posterior
    np.testing.assert_allclose(gaussian_log_weight(z, mean, log_variance, likelihood), expected, rtol=1e-9)


def test_log_mean_exp_has_value_error_and_effective_size() -> None:
    logs = torch.tensor(
        [[0.0, math.log(3.0)], [-2000.0, -2000.0], [-math.inf, -math.inf]], dtype=torch.float64
    )
    value, error, size = log_mean_exp(logs)
    assert value.tolist() == pytest.approx([math.log(2.0), -2000.0, -math.inf])
    assert error[0] == pytest.approx(0.5)
    assert error[1] == 0
    assert error[2].isnan()
    assert size.tolist() == pytest.approx([1.6, 2.0, 0.0])
    assert log_mean_exp(logs[:, :1])[1].isnan().all()


def test_images_are_rounded_half_up_clamped_and_channels_last() -> None:
    x = torch.tensor([-2.0, -1.0, 0.0, 0.5 / 127.5, 1.0, 2.0, torch.nan, torch.inf]).reshape(1, 2, 2, 2)
    image = image_to_uint8(x)
    assert image.shape == (1, 2, 2, 2)
    assert image[0, :, :, 0].ravel().tolist() == [0, 0, 128, 128]
    assert image[0, :, :, 1].ravel().tolist() == [255, 255, 0, 255]
    assert image_to_uint8(torch.tensor([[[[0.0, 0.4, 0.6, 7.0]]]]), 1.0, 0.0, 4).ravel().tolist() == [
        0,
        0,
        1,
        3,
    ]
