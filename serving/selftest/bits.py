"""Comparing rows bit for bit, and what a difference means."""

from __future__ import annotations

import numpy as np

from serving.selftest.check import Finding, judged, not_applicable
from serving.selftest.subject import Rows, Subject

TOLERATED = 0.02  # of the rows' own spread, where bits are not promised


def compared(subject: Subject, one: Rows, other: Rows, what: str) -> Finding:
    """PASS where every bit agrees.

    Where the package's networks round differently in different batches on this device (class TOLERANCE),
    a small difference proves nothing, and one of the size of the data still does.
    """
    same = one.data.shape == other.data.shape and bool(np.array_equal(one.data, other.data))
    largest, share = _difference(one, other)
    if same or subject.bitwise:
        return judged(
            same, largest, f"{what}: largest difference of any entry; rows depend on their batch if not 0"
        )
    if subject.spec.family == "autoregressive" or share < TOLERATED:
        return not_applicable(
            f"{what}: this package is of class TOLERANCE here; rows moved by {share:.1%} of their spread"
        )
    return judged(
        False, largest, f"{what}: rows moved by {share:.0%} of their spread, more than rounding can"
    )


def _difference(one: Rows, other: Rows) -> tuple[float, float]:
    """Largest difference, and the root mean square one relative to the spread of the rows."""
    width = min(one.data.shape[1], other.data.shape[1])
    a, b = (rows.data[:, :width].astype(np.float64) for rows in (one, other))
    if a.shape != b.shape or not a.size:
        return float("inf"), 1.0
    gap, spread = np.abs(a - b), float(a.std())
    return float(gap.max()), float(np.sqrt(np.square(gap).mean())) / max(spread, 1e-12)
