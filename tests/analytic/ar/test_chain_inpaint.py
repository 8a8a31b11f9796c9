from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from serving.errors import InvalidArgument
from serving.families.request import Operation, Request
from serving.families.result import Completed, CompletionKind, Result
from tests.analytic.ar.chains import (
    KNOWN,
    LAST_GAP,
    LAST_GAP_LEFT_ONLY,
    LOG_EVIDENCE,
    OBSERVED,
    STEP,
    Chain,
    chain_spec,
    posterior,
    request,
)

FALSE_ALARM = 1e-6


def completed(result: Result) -> Completed:
    assert isinstance(result, Completed)
    return result


def ask(
    method: str,
    completions: int,
    known: NDArray[np.int32] = KNOWN,
    observed: NDArray[np.bool_] = OBSERVED,
    seed: int = 1,
    **parameters: object,
) -> Request:
    return request(
        Operation.INPAINT,
        method,
        len(known),
        seed,
        completions=completions,
        data=known,
        observed=observed,
        parameters=parameters,
    )


def g_test(drawn: NDArray[np.int32], known: NDArray[np.int32], observed: NDArray[np.bool_]) -> float:
    """p-value of completions [n, length] of one row against the exact posterior; rare ones pooled."""
    rows, joint = posterior(known, observed)
    law = np.exp(joint - joint.max())
    law /= law.sum()
    code = 4 ** np.arange(rows.shape[1])
    order = np.argsort(rows @ code)
    count = np.bincount(np.searchsorted((rows @ code)[order], drawn @ code), minlength=len(rows))
    expected = law[order] * len(drawn)
    common = expected >= 5
    count = np.append(count[common], count[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    statistic = 2.0 * np.sum(np.where(count > 0, count * np.log(np.maximum(count, 1) / expected), 0.0))
    return float(stats.chi2.sf(statistic, len(count) - 1))


def test_enumeration_draws_from_the_exact_posterior() -> None:
    result = completed(Chain().ask(ask("enumerate", 20_000, moments=True)))
    assert result.kind is CompletionKind.EXACT
    assert result.log_evidence is not None
    assert result.log_evidence[0] == pytest.approx(LOG_EVIDENCE, abs=2e-6)
    assert g_test(result.data[0].astype(np.int32), KNOWN[0], OBSERVED[0]) > FALSE_ALARM
    assert result.mean is not None
    assert result.mean[0, 5] == pytest.approx(LAST_GAP @ np.arange(4), abs=4e-3)


def test_particles_draw_from_the_posterior_and_weigh_what_comes_later() -> None:
    result = completed(Chain().ask(ask("smc", 4000, particles=64)))
    assert result.kind is CompletionKind.CONSISTENT
    marginal = np.bincount(result.data[0, :, 5], minlength=4) / 4000
    assert 0.5 * np.abs(marginal - LAST_GAP).sum() < 0.04
    assert g_test(result.data[0].astype(np.int32), KNOWN[0], OBSERVED[0]) > FALSE_ALARM
    assert result.log_evidence is not None
    assert result.log_evidence[0] == pytest.approx(LOG_EVIDENCE, abs=0.02)
    assert result.effective_sample_size is not None
    assert 1.0 <= result.effective_sample_size[0] <= 64.0


def test_left_to_right_is_not_the_posterior() -> None:
    result = completed(Chain().ask(ask("left_to_right", 4000)))
    assert result.kind is CompletionKind.APPROXIMATE
    marginal = np.bincount(result.data[0, :, 5], minlength=4) / 4000
    assert 0.5 * np.abs(marginal - LAST_GAP_LEFT_ONLY).sum() < 0.03
    assert 0.5 * np.abs(marginal - LAST_GAP).sum() == pytest.approx(0.546, abs=0.03)
    assert g_test(result.data[0].astype(np.int32), KNOWN[0], OBSERVED[0]) < FALSE_ALARM


@pytest.mark.parametrize("method", ["smc", "left_to_right"])
def test_a_missing_end_is_drawn_exactly(method: str) -> None:
    observed = np.arange(8)[None] < 6
    result = completed(Chain().ask(ask(method, 5000, observed=observed, particles=8)))
    assert result.kind in (CompletionKind.EXACT, CompletionKind.APPROXIMATE)
    assert g_test(result.data[0].astype(np.int32), KNOWN[0], observed[0]) > FALSE_ALARM


def test_gaps_and_a_missing_end_together_follow_the_posterior() -> None:
    observed = np.array([[False, True, True, False, True, True, False, False]])
    known = np.array([[0, 0, 1, 0, 3, 3, 0, 0]], np.int32)
    result = completed(Chain().ask(ask("smc", 5000, known, observed, particles=64)))
    assert g_test(result.data[0].astype(np.int32), known[0], observed[0]) > FALSE_ALARM


def test_nothing_observed_is_plain_sampling() -> None:
    observed = np.zeros((1, 8), np.bool_)
    result = completed(Chain().ask(ask("smc", 4000, observed=observed)))
    assert result.kind is CompletionKind.EXACT
    assert result.log_evidence is not None
    assert result.log_evidence[0] == 0.0
    data = result.data[0].astype(np.int64)
    pairs = data[:, :-1] * 4 + data[:, 1:]
    count = np.bincount(pairs.reshape(-1), minlength=16).reshape(4, 4)
    frequency = count / count.sum(1, keepdims=True)
    error = np.sqrt(STEP * (1 - STEP) / count.sum(1, keepdims=True))
    assert (np.abs(frequency - STEP) < 4.9 * error).all()


@pytest.mark.parametrize("method", ["smc", "left_to_right", "enumerate"])
def test_given_entries_return_bit_for_bit(method: str) -> None:
    data = np.random.default_rng(0).integers(0, 4, (5, 8)).astype(np.int32)
    observed = np.random.default_rng(1).random((5, 8)) < 0.5
    result = completed(Chain().ask(ask(method, 3, data, observed)))
    assert result.data.shape == (5, 3, 8)
    assert result.data.dtype == data.dtype
    for completion in range(3):
        assert (result.data[:, completion][observed] == data[observed]).all()


def test_completions_do_not_depend_on_how_many_are_asked_for() -> None:
    few, many = (completed(Chain().ask(ask("smc", n, particles=16))) for n in (2, 5))
    assert (few.data == many.data[:, :2]).all()
    alone = completed(Chain().ask(ask("smc", 2, particles=16, moments=True)))
    assert (alone.data == few.data).all()


def test_rows_do_not_depend_on_their_neighbours() -> None:
    data = np.random.default_rng(0).integers(0, 4, (6, 8)).astype(np.int32)
    observed = np.random.default_rng(1).random((6, 8)) < 0.5
    whole = completed(Chain().ask(ask("smc", 2, data, observed, particles=16)))
    split = completed(Chain(capacity=3).ask(ask("smc", 2, data[:4], observed[:4], particles=16)))
    assert (whole.data[:4] == split.data).all()
    assert whole.log_evidence is not None
    assert split.log_evidence is not None
    assert (whole.log_evidence[:4] == split.log_evidence).all()


def test_moments_agree_with_the_posterior() -> None:
    observed = np.array([[True, False, True, False, False, True, False, True]])
    spec = chain_spec((2, 4), "image", ("height", "width"))
    known, shape = KNOWN.reshape(1, 2, 4), observed.reshape(1, 2, 4)
    rows, joint = posterior(KNOWN[0], observed[0])
    law = np.exp(joint) / np.exp(joint).sum()
    mean = law @ rows
    variance = law @ (rows - mean) ** 2
    exact = completed(Chain(spec).ask(ask("enumerate", 1, known, shape, moments=True)))
    smc = completed(Chain(spec).ask(ask("smc", 50, known, shape, particles=400, moments=True)))
    assert exact.mean is not None
    assert exact.variance is not None
    assert smc.mean is not None
    assert smc.variance is not None
    np.testing.assert_allclose(exact.mean.reshape(8), mean, atol=1e-5)
    np.testing.assert_allclose(exact.variance.reshape(8), variance, atol=1e-5)
    np.testing.assert_allclose(smc.mean.reshape(8), mean, atol=0.05)
    np.testing.assert_allclose(smc.variance.reshape(8), variance, atol=0.1)


@pytest.mark.parametrize(
    ("method", "extra", "slack"), [("enumerate", {}, 1e-6), ("smc", {"particles": 400}, 0.05)]
)
def test_entropy_is_that_of_every_symbol_s_posterior(
    method: str, extra: dict[str, int], slack: float
) -> None:
    observed = np.array([[True, False, True, False, False, True, False, True]])
    rows, joint = posterior(KNOWN[0], observed[0])
    law = np.exp(joint) / np.exp(joint).sum()
    shares = np.stack([law @ (rows == symbol) for symbol in range(4)])
    truth = -(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=0)
    found = completed(
        Chain().ask(ask(method, 1 if method == "enumerate" else 50, KNOWN, observed, entropy=True, **extra))
    )
    assert found.mean is None
    assert found.entropy is not None
    np.testing.assert_allclose(found.entropy[0], truth, atol=slack)
    assert (found.entropy[0, observed[0]] == 0.0).all()


def test_too_many_values_to_enumerate_name_the_other_method() -> None:
    with pytest.raises(InvalidArgument, match="smc"):
        Chain().ask(ask("enumerate", 1, observed=np.zeros((1, 8), np.bool_)))


@pytest.mark.parametrize("method", ["smc", "left_to_right", "enumerate"])
def test_network_rows_are_an_upper_bound(method: str) -> None:
    chain = Chain()
    data = np.random.default_rng(0).integers(0, 4, (4, 8)).astype(np.int32)
    observed = np.random.default_rng(1).random((4, 8)) < 0.6
    work = ask(method, 2, data, observed, particles=8)
    chain.ask(work)
    assert 0.3 * chain.family.network_rows(work)["scorer"] <= chain.network.rows
    assert chain.network.rows <= chain.family.network_rows(work)["scorer"]
