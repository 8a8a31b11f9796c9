"""Completion times: exactly those of a simulation that runs the shortest rows first, a full run at a time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.engine import forecast
from serving.engine.forecast import Pace, completion_s

PACE = Pace(capacity=4, base_s=1.0, per_row_s=0.25)


def simulated(depth: list[int], width: list[int], pace: Pace) -> list[float]:
    """Run after run: the first ``capacity`` rows of the list that are not done take part."""
    left = [[runs] * rows for runs, rows in zip(depth, width, strict=True)]
    done, now_s = [0.0] * len(depth), 0.0
    while any(any(rows) for rows in left):
        waiting = [(task, row) for task, rows in enumerate(left) for row, runs in enumerate(rows) if runs]
        chosen = waiting[: pace.capacity]
        now_s += pace.base_s + pace.per_row_s * len(chosen)
        for task, row in chosen:
            left[task][row] -= 1
            if not any(left[task]):
                done[task] = now_s
    return done


def ints(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, np.int64)


@pytest.mark.parametrize("seed", range(8))
def test_completions_are_those_of_a_simulation_where_depths_ascend(seed: int) -> None:
    rng = np.random.default_rng(seed)
    depth = sorted(rng.integers(1, 9, 7).tolist())
    width = rng.integers(1, 4, 7).tolist()
    found = completion_s(ints(depth), ints(width), PACE)
    np.testing.assert_allclose(found, simulated(depth, width, PACE), rtol=1e-12)


def test_one_task_alone_takes_its_runs() -> None:
    assert completion_s(ints([5]), ints([2]), PACE).tolist() == [5 * 1.5]
    assert completion_s(ints([5]), ints([6]), PACE).tolist() == [5 * 2.0 + 5 * 1.5]  # four rows, then two


def test_many_rows_are_a_fluid_within_a_few_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    depth, width = ints([10, 20, 40] * 20), ints([8] * 60)
    exact = completion_s(depth, width, PACE)
    monkeypatch.setattr(forecast, "MOST_ROWS", 10)
    assert completion_s(depth, width, PACE)[-1] == pytest.approx(exact[-1], rel=0.1)
