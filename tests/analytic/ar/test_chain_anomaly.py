from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from serving.errors import FailedPrecondition
from serving.families.calibration import Calibration
from serving.families.request import Operation
from serving.families.result import Anomalies, Sampled
from tests.analytic.ar.chains import Chain, chain_spec, log_prob, request


def drawn(count: int, seed: int) -> np.ndarray:
    sample = Chain().ask(request(Operation.SAMPLE, "ancestral", count, seed))
    assert isinstance(sample, Sampled)
    return sample.data


def statistics(data: np.ndarray, method: str = "typicality") -> np.ndarray:
    result = Chain().statistics(request(Operation.SCORE_ANOMALY, method, len(data), data=data))
    assert isinstance(result, Anomalies)
    assert result.p_value is None
    return result.score


def calibrated() -> Chain:
    found = {method: statistics(drawn(400, 1)) for method in ("typicality", "surprisal")}
    calibration = Calibration.fit("0" * 64, found, {"typicality": statistics(drawn(400, 2))})
    return Chain(calibration=calibration)


def test_the_raw_statistic_is_the_surprisal_of_the_row() -> None:
    data = drawn(20, 3)
    truth = [-log_prob(row) for row in data.astype(np.int32)]
    np.testing.assert_allclose(statistics(data), truth, atol=1e-5)


def test_where_lengths_vary_the_statistic_is_per_symbol() -> None:
    chain = Chain(chain_spec((-1,)))
    data, lengths = drawn(2, 3), np.array([8, 3], np.int32)
    result = chain.statistics(request(Operation.SCORE_ANOMALY, "typicality", 2, data=data, lengths=lengths))
    assert isinstance(result, Anomalies)
    assert result.score[1] == pytest.approx(-log_prob(data[1, :3].astype(np.int32)) / 3, abs=1e-5)


def test_p_values_of_the_models_own_rows_are_uniform() -> None:
    data = drawn(1000, 4)
    result = calibrated().ask(request(Operation.SCORE_ANOMALY, "typicality", 1000, data=data))
    assert isinstance(result, Anomalies)
    assert result.p_value is not None
    assert result.calibration_size == 400
    assert stats.kstest(result.p_value, "uniform").statistic < 0.15  # 400 calibration rows, and ties


def test_rows_that_are_too_likely_are_strange_as_well() -> None:
    data = np.stack([np.tile([0, 3], 4), np.zeros(8)]).astype(np.int32)
    chain = calibrated()
    asks = (request(Operation.SCORE_ANOMALY, method, 2, data=data) for method in ("typicality", "surprisal"))
    two_sided, one_sided = (chain.ask(ask) for ask in asks)
    assert isinstance(two_sided, Anomalies)
    assert isinstance(one_sided, Anomalies)
    assert two_sided.p_value is not None
    assert one_sided.p_value is not None
    assert two_sided.p_value[0] == pytest.approx(1 / 401)
    assert one_sided.p_value[1] == pytest.approx(1.0)
    assert two_sided.p_value[1] < one_sided.p_value[1]


def test_the_score_map_is_the_surprisal_of_each_symbol() -> None:
    data = drawn(3, 5)
    ask = request(Operation.SCORE_ANOMALY, "typicality", 3, data=data, parameters={"score_map": True})
    result = calibrated().ask(ask)
    assert isinstance(result, Anomalies)
    assert result.score_map is not None
    np.testing.assert_allclose(result.score_map.sum(1), statistics(data), atol=1e-5)


def test_without_calibration_there_is_no_score() -> None:
    ask = request(Operation.SCORE_ANOMALY, "typicality", 1, data=drawn(1, 1))
    with pytest.raises(FailedPrecondition) as refusal:
        Chain().family.program(ask)
    assert refusal.value.reason == "NOT_CALIBRATED"
