from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from serving.errors import FailedPrecondition
from serving.families.calibration import Calibration

FITTED = Calibration.fit(
    "package", {"typicality": [4.0, 1.0, 2.0, 3.0], "reconstruction": [1.0, 2.0]}, {"typicality": [2.0, 3.0]}
)


def test_two_sided_scores_are_distances_from_the_centre() -> None:
    scores, p_values = FITTED.score("typicality", np.array([2.5, 0.0, 9.0, 3.4]))
    np.testing.assert_allclose(scores, [0.0, 2.5, 6.5, 0.9])
    np.testing.assert_allclose(p_values, [1.0, 0.2, 0.2, 0.6])  # calibrated: 0.5, 0.5, 1.5, 1.5


def test_ties_count_as_at_least_as_strange() -> None:
    assert FITTED.score("reconstruction", np.array([2.0]))[1] == pytest.approx(2 / 3)


def test_rounding_does_not_break_ties() -> None:
    """Half of the rows are one and the same; a machine that sums in another order is 1e-7 off."""
    calibration = Calibration.fit("p", {"typicality": [2.0, 7.25, 7.25, 9.0]}, {"typicality": [4.0]})
    for statistic in (7.25 * (1 - 1e-7), 7.25, 7.25 * (1 + 1e-7)):
        assert calibration.score("typicality", np.array([statistic]))[1][0] == pytest.approx(4 / 5)


def test_no_finite_statistic_is_as_strange_as_can_be() -> None:
    scores, p_values = FITTED.score("typicality", np.array([np.nan, -np.inf]))
    assert np.isposinf(scores).all()
    np.testing.assert_allclose(p_values, 1 / 5)


def test_p_values_are_super_uniform() -> None:
    """Exact under exchangeability: a point k/(n+1) is exceeded downwards with probability at most k/(n+1)."""
    rng, n, trials = np.random.default_rng(1), 19, 4000
    p_values = np.empty(trials)
    for trial in range(trials):
        draws = rng.normal(size=n + 6)
        fitted = Calibration.fit("p", {"m": draws[:n]}, {"m": draws[n + 1 :]})
        p_values[trial] = fitted.score("m", draws[n : n + 1])[1][0]
    for k in range(1, n + 1):
        bound = k / (n + 1)
        slack = 4.9 * np.sqrt(bound * (1 - bound) / trials)
        assert abs((p_values <= bound + 1e-12).mean() - bound) <= slack


def test_file_reads_back_and_knows_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    written = FITTED.write(path, "package")
    found = Calibration.read(path, "package")
    assert found.digest == written.digest == FITTED.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.size("typicality") == 4
    np.testing.assert_array_equal(found.reference("typicality").statistics, [1.0, 2.0, 3.0, 4.0])
    assert list(tmp_path.iterdir()) == [path]


def test_another_package_is_refused(tmp_path: Path) -> None:
    FITTED.write(tmp_path / "c.json", "other")
    with pytest.raises(FailedPrecondition, match="made for package other") as caught:
        Calibration.read(tmp_path / "c.json", "package")
    assert caught.value.reason == "NOT_CALIBRATED"


def test_an_uncalibrated_method_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match="calibrated: reconstruction, typicality") as caught:
        FITTED.score("anogan", np.zeros(1))
    assert caught.value.reason == "NOT_CALIBRATED"


@pytest.mark.parametrize(
    "document",
    [
        "nothing",
        "[]",
        "{}",
        {"format_version": 2, "package_digest": "p", "methods": {}},
        {"format_version": 1, "package_digest": "p", "methods": {"m": {"centre": "x", "statistics": [1]}}},
        {"format_version": 1, "package_digest": "p", "methods": {"m": {"centre": None, "statistics": []}}},
        {"format_version": 1, "package_digest": "p", "methods": {"m": {"centre": None}}},
        {"format_version": 1, "package_digest": "p", "methods": []},
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, document: object) -> None:
    path = tmp_path / "c.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(FailedPrecondition, match="no calibration file"):
        Calibration.read(path, "p")


def test_statistics_must_be_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        Calibration.fit("p", {"m": [np.nan]}, {})
