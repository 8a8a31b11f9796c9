"""Which levels a sampler visits: sub-sequences of the training steps, or levels between them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serving.families.diffusion.process import Levels, Process

Spacing = Literal["trailing", "leading", "linspace", "karras"]
KARRAS_EXPONENT = 7.0


def levels_of(process: Process, steps: int, spacing: Spacing) -> Levels:
    """``steps`` noisy levels in descending order, then the clean one: steps + 1 entries.

    Flow models take s equidistant from 1 whatever the spacing. An integer-time network meets each
    level once: where Karras levels fall together, fewer are visited.
    """
    if process.is_flow:
        return process.at_flow(np.linspace(1.0, 0.0, steps + 1)[:-1]).to_clean()
    if spacing == "karras":
        return _karras(process, steps)
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
