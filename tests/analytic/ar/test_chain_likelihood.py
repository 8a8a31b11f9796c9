from __future__ import annotations

import numpy as np
import pytest

from serving.errors import InvalidArgument
from serving.families.request import Operation, Request
from serving.families.result import LikelihoodKind, Result, Scored
from tests.analytic.ar.chains import (
    KNOWN,
    LOG_EVIDENCE,
    OBSERVED,
    START,
    STEP,
    Chain,
    chain_spec,
    every_row,
    log_prob,
    request,
)


def scored(result: Result) -> Scored:
    assert isinstance(result, Scored)
    return result


def masked(method: str, seed: int = 1, rows: int = 1, **parameters: object) -> Request:
    data, observed = np.repeat(KNOWN, rows, axis=0), np.repeat(OBSERVED, rows, axis=0)
    fields: dict[str, object] = {"data": data, "observed": observed, "parameters": parameters}
    return request(Operation.LIKELIHOOD, method, rows, seed, **fields)


@pytest.mark.parametrize("shifted", [True, False])
def test_log_prob_agrees_with_the_chain(shifted: bool) -> None:
    data = np.random.default_rng(0).integers(0, 4, (50, 8)).astype(np.int32)
    chain = Chain(chain_spec(shifted_input=shifted))
    result = scored(chain.ask(request(Operation.LIKELIHOOD, "exact", 50, data=data)))
    truth = np.array([log_prob(row) for row in data])
    np.testing.assert_allclose(result.log_prob, truth, atol=1e-5)
    assert result.kind is LikelihoodKind.EXACT
    assert result.scored_dims.tolist() == [8] * 50


def test_probabilities_of_all_rows_sum_to_one() -> None:
    data = every_row(5)
    chain = Chain(chain_spec((5,)))
    result = scored(chain.ask(request(Operation.LIKELIHOOD, "exact", len(data), data=data)))
    assert np.exp(result.log_prob).sum() == pytest.approx(1.0, abs=1e-6)


def test_entropy_rate_gives_the_golden_perplexity() -> None:
    data = every_row(8)
    truth = np.array([log_prob(row) for row in data])
    chain = Chain()
    result = scored(chain.ask(request(Operation.LIKELIHOOD, "exact", len(data), data=data)))
    rate = -(np.exp(truth) * result.log_prob).sum() / 8
    assert rate == pytest.approx(0.764015, abs=2e-6)
    assert np.exp(rate) == pytest.approx(2.146879, abs=5e-6)
    assert (np.exp(truth) * result.bits_per_dim).sum() == pytest.approx(1.102241, abs=3e-6)


def test_the_map_sums_to_log_prob_and_has_the_shape_of_the_data() -> None:
    data = np.random.default_rng(0).integers(0, 4, (6, 2, 4)).astype(np.int32)
    chain = Chain(chain_spec((2, 4), "image", ("height", "width")))
    parameters = {"per_dimension": True}
    ask = request(Operation.LIKELIHOOD, "exact", 6, data=data, parameters=parameters)
    result = scored(chain.ask(ask))
    assert result.log_prob_map is not None
    assert result.log_prob_map.shape == data.shape
    np.testing.assert_allclose(result.log_prob_map.sum((1, 2)), result.log_prob, atol=1e-5)
    assert result.log_prob_map[0, 0, 0] == pytest.approx(np.log(START[data[0, 0, 0]]), abs=1e-6)
    crossing = np.log(
        STEP[data[0, 0, 3], data[0, 1, 0]]
    )  # raster order: the next line follows the last column
    assert result.log_prob_map[0, 1, 0] == pytest.approx(crossing, abs=1e-6)


def test_marginal_of_observed_symbols_is_the_golden_number() -> None:
    result = scored(Chain().ask(masked("exact")))
    assert result.log_prob[0] == pytest.approx(LOG_EVIDENCE, abs=2e-6)
    assert result.kind is LikelihoodKind.EXACT
    assert result.scored_dims.tolist() == [5]


def test_marginal_of_a_prefix_takes_one_evaluation() -> None:
    chain = Chain()
    observed = np.arange(8)[None] < 3
    ask = request(Operation.LIKELIHOOD, "exact", 1, data=KNOWN, observed=observed)
    result = scored(chain.ask(ask))
    assert result.log_prob[0] == pytest.approx(np.log(0.4 * 0.85 * 0.1), abs=1e-6)
    assert chain.network.rows == 1 == chain.family.network_rows(ask)["scorer"]


def test_entries_that_are_not_observed_are_never_read() -> None:
    other = KNOWN.copy()
    other[~OBSERVED] = 2_000_000
    ask = request(Operation.LIKELIHOOD, "exact", 1, data=other, observed=OBSERVED)
    result = scored(Chain().ask(ask))
    assert result.log_prob[0] == scored(Chain().ask(masked("exact"))).log_prob[0]


def test_too_many_unknown_values_name_the_other_method() -> None:
    observed = np.zeros((1, 8), np.bool_)
    observed[0, -1] = True
    chain = Chain()
    with pytest.raises(InvalidArgument, match="smc"):
        chain.ask(request(Operation.LIKELIHOOD, "exact", 1, data=KNOWN, observed=observed))


def test_evidence_of_particles_is_unbiased_and_its_error_covers() -> None:
    rows = 200
    result = scored(Chain().ask(masked("smc", rows=rows, importance_samples=64)))
    assert result.kind is LikelihoodKind.STOCHASTIC_LOWER_BOUND
    assert result.standard_error is not None
    ratio = np.exp(result.log_prob - LOG_EVIDENCE)
    error = ratio.std(ddof=1) / np.sqrt(rows)
    assert abs(ratio.mean() - 1.0) < 4.9 * error
    assert error < 0.02
    z = (result.log_prob - LOG_EVIDENCE) / result.standard_error
    assert 0.7 < np.sqrt(np.mean(z**2)) < 1.5  # eight filters: Student's t with 7 degrees, 1.18
    assert (result.log_prob - LOG_EVIDENCE < 14.0).all()


def test_evidence_is_estimated_until_the_standard_error_is_met() -> None:
    chain = Chain()
    ask = masked("smc", rows=3, importance_samples=16, target_standard_error=0.1)
    result = scored(chain.ask(ask))
    assert result.standard_error is not None
    assert result.network_evaluations is not None
    assert (result.standard_error <= 0.1).all()
    assert (result.network_evaluations > 16 * 3).all()
    assert chain.network.rows == result.network_evaluations.sum()
    alone = scored(Chain().ask(masked("smc", rows=1, importance_samples=16, target_standard_error=0.1)))
    assert alone.log_prob[0] == result.log_prob[0]


def test_evidence_stops_at_its_budget() -> None:
    chain = Chain()
    ask = masked("smc", importance_samples=16, target_standard_error=1e-6, max_network_evaluations=200)
    result = scored(chain.ask(ask))
    assert result.network_evaluations is not None
    assert result.network_evaluations[0] <= 200
    assert chain.network.rows <= chain.family.network_rows(ask)["scorer"]


def test_rows_of_different_lengths_are_scored_as_if_alone() -> None:
    chain = Chain(chain_spec((-1,)))
    data = np.random.default_rng(3).integers(0, 4, (5, 39)).astype(np.int32)
    lengths = np.array([1, 7, 33, 39, 20], np.int32)
    ask = request(Operation.LIKELIHOOD, "exact", 5, data=data, lengths=lengths)
    result = scored(chain.ask(ask))
    assert result.scored_dims.tolist() == lengths.tolist()
    for row, length in enumerate(lengths):
        one = data[row : row + 1, :length]
        alone = scored(chain.ask(request(Operation.LIKELIHOOD, "exact", 1, data=one)))
        assert alone.log_prob[0] == result.log_prob[row]
        assert alone.log_prob[0] == pytest.approx(log_prob(one[0]), abs=1e-5)
