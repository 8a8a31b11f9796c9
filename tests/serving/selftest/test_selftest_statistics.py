from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from serving.selftest.statistics import kolmogorov, normal_cdf, normal_tail, swapped_pairs


def test_normal_probabilities_are_those_of_scipy() -> None:
    z = np.linspace(-5, 5, 11)
    np.testing.assert_allclose(normal_cdf(z), stats.norm.cdf(z), rtol=1e-12, atol=1e-16)
    assert normal_tail(4.9) == pytest.approx(stats.norm.sf(4.9), rel=1e-9)


@pytest.mark.parametrize("n", [16, 400])
def test_distance_is_kolmogorov_s_and_its_p_value_is_never_too_small(n: int) -> None:
    generator = np.random.default_rng(n)
    for power in (1.0, 1.5):
        values = generator.random(n) ** power
        truth = stats.kstest(values, "uniform")
        distance, p_value = kolmogorov(values)
        assert distance == pytest.approx(truth.statistic)
        assert p_value >= truth.pvalue * 0.999


def test_swapping_pairs_sees_a_wrong_correlation_and_nothing_else() -> None:
    generator = np.random.default_rng(1)
    given, one = generator.standard_normal((2, 200))
    right = np.stack([given, 0.9 * given + np.sqrt(0.19) * one], axis=1)
    other = np.stack([given, 0.9 * given + np.sqrt(0.19) * generator.standard_normal(200)], axis=1)
    wrong = np.stack([given, generator.standard_normal(200)], axis=1)
    assert swapped_pairs(right, other, 0)[1] > 1e-3
    assert swapped_pairs(right, wrong, 0)[1] < 1e-3
    assert swapped_pairs(right, right, 0)[1] == 1.0


def test_p_values_of_exchangeable_pairs_are_uniform() -> None:
    generator = np.random.default_rng(2)
    pairs = [(generator.standard_normal((12, 2)), generator.standard_normal((12, 2))) for _ in range(120)]
    found = [swapped_pairs(*draws, seed)[1] for seed, draws in enumerate(pairs)]
    assert stats.kstest(found, "uniform").pvalue > 1e-6
