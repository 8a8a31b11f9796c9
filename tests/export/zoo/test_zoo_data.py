from __future__ import annotations

import numpy as np

from export.zoo.classifier import classify, coverage
from export.zoo.data import SYMBOLS_MAX, digits, text


def test_digit_splits_have_their_sizes_and_levels() -> None:
    splits = digits()
    assert splits.train.images.shape == (1297, 1, 8, 8)
    assert splits.calibration.images.shape == (250, 1, 8, 8)
    assert splits.test.images.shape == (250, 1, 8, 8)
    assert splits.train.images.dtype == np.uint8
    assert splits.train.images.max() == 16


def test_digit_splits_are_balanced_where_figures_are_reported() -> None:
    for part in (digits().calibration, digits().test):
        assert np.bincount(part.labels).tolist() == [25] * 10


def test_digit_splits_share_no_image() -> None:
    splits = digits()
    seen = [{image.tobytes() for image in part.images} for part in (splits.train, splits.test)]
    assert not seen[0] & seen[1]


def test_text_rows_leave_room_for_the_end_symbol() -> None:
    for rows in (text().train, text().calibration, text().test):
        assert rows
        assert all(0 < len(row) < SYMBOLS_MAX for row in rows)
        assert all(row.decode("utf-8", errors="ignore") for row in rows)


def test_text_splits_share_no_row() -> None:
    assert not set(text().train) & set(text().test)


def test_classifier_knows_real_digits() -> None:
    test = digits().test
    assert (classify(test.images) == test.labels).mean() > 0.97
    assert coverage(test.images).min() > 0.08
