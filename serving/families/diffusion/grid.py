"""Which levels a sampler visits: sub-sequences of the training steps, or levels between them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serving.families.diffusion.process import Levels, Process

Spacing = Literal["trailing", "leading", "linspace", "karras", "churned"]
KARRAS_EXPONENT = 7.0
CHURN = 40.0  # S_churn, S_tmin and S_tmax of Karras et al. 2022, table 5 (ImageNet-64)
CHURNED_RATIOS = 0.05, 50.0
LARGEST_CHURN = 2.0**0.5 - 1.0


def levels_of(process: Process, steps: int, spacing: Spacing) -> Levels:
    """``steps`` noisy levels in descending order, then the clean one: steps + 1 entries.

    Flow models take s equidistant from 1 whatever the spacing. An integer-time network meets each
    level once: where Karras levels fall together, fewer are visited.
    """
    if process.is_flow:
        return process.at_flow(np.linspace(1.0, 0.0, steps + 1)[:-1]).to_clean()
    if spacing == "karras":
        return _karras(process, steps)
    if spacing == "churned":
        levels = _karras(process, steps)
        return levels.followed_by(_churned(process, levels[:-1]))
    return process.at(subsequence(process.count, steps, spacing)).to_clean()


def subsequence(count: int, steps: int, spacing: Spacing) -> NDArray[np.int64]:
    """Descending training steps (Lin et al. 2024, table 2).

    trailing visits the last step, count - 1; leading (step 0, never the last one) and linspace (both)
    are what other libraries were trained to expect.
    """
    if steps > count:
        raise ValueError(f"steps: {steps} of a schedule of {count}")
    position = np.arange(steps, dtype=np.float64)
    if spacing == "trailing":
        return np.rint(count - position * count / steps).astype(np.int64) - 1
    if spacing == "leading":
        return (np.arange(steps) * (count // steps))[::-1].astype(np.int64)
    return np.rint(np.linspace(0, count - 1, steps))[::-1].astype(np.int64)


def _karras(process: Process, steps: int) -> Levels:
    """Karras et al. 2022, eq. 5, in the relative noise sigma / alpha."""
    low, high = process.sampled_ratio_range
    ends = high ** (1 / KARRAS_EXPONENT), low ** (1 / KARRAS_EXPONENT)
    levels = process.at_ratio(np.linspace(*ends, steps) ** KARRAS_EXPONENT)
    distinct = np.append(True, np.diff(levels.ratio) < 0)
    return levels[np.flatnonzero(distinct)].to_clean()


def _churned(process: Process, levels: Levels) -> Levels:
    """The level to which each one is churned (Karras et al. 2022, algorithm 2); the first stays."""
    low, high = CHURNED_RATIOS
    added = min(CHURN / len(levels), LARGEST_CHURN) * ((levels.ratio >= low) & (levels.ratio <= high))
    added[0] = 0.0
    return process.at_ratio(levels.ratio * (1.0 + added))
