"""What streams tell while they run: tokens, previews, rows as soon as they are final, running estimates."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from pxserve import Client, Estimate, Preview, Progress, Row, Summary, TextDelta
from tests.e2e.verbs import DIFFUSION, LETTERS, PROSE, ROWS, UPPER

pytestmark = pytest.mark.xdist_group("e2e")


REFINE = {"target_standard_error": 1e-3, "max_network_evaluations": 20_000}


def of(events: list[Any], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_text_comes_as_it_is_written(client: Client) -> None:
    events = list(
        client.stream_sample(LETTERS, 2, prompt=PROSE, max_new_tokens=40, seed=1, preview_every_steps=1)
    )
    deltas = of(events, TextDelta)
    whole = client.sample(LETTERS, 2, prompt=PROSE, max_new_tokens=40, seed=1)
    for row in range(2):
        mine = [delta for delta in deltas if delta.row == row]
        assert len(mine) > 2, "one delta per row is no stream"
        assert PROSE + "".join(delta.text for delta in mine) == whole.text[row]
    assert isinstance(events[-1], Summary)


def test_previews_of_a_diffusion_approach_the_final_row(client: Client) -> None:
    events = list(client.stream_sample(DIFFUSION, 2, steps=100, seed=1, preview_every_steps=10))
    finals = {event.row: event.data for event in of(events, Row)}
    previews = [event for event in of(events, Preview) if event.row == 0]
    assert len(previews) >= 3
    assert all(event.step % 10 == 0 for event in previews)
    gaps = [float(np.abs(event.data.astype(float) - finals[0]).mean()) for event in previews]
    assert gaps[-1] < gaps[0]
    np.testing.assert_array_equal(finals[0], client.sample(DIFFUSION, 2, steps=100, seed=1).data[0])


def test_progress_grows_to_its_total(client: Client) -> None:
    events = list(client.stream_sample(DIFFUSION, 32, steps=100, seed=1))
    progress = of(events, Progress)
    assert len(progress) >= 2
    assert all(one.steps_done <= other.steps_done for one, other in itertools.pairwise(progress))
    assert {event.steps_total for event in progress} == {32 * 100}
    assert all(event.predicted_seconds_left >= 0.0 for event in progress)


def test_completions_come_before_the_last_one_is_final(client: Client) -> None:
    """More rows than one table holds at once must not wait for each other."""
    events = list(
        client.stream_inpaint("digits-autoregressive", ROWS[:8], UPPER, method="left_to_right", seed=1)
    )
    rows = of(events, Row)
    assert sorted(row.row for row in rows) == list(range(8))
    assert isinstance(events[-1], Summary)
    whole = client.inpaint("digits-autoregressive", ROWS[:8], UPPER, method="left_to_right", seed=1)
    for row in rows:
        np.testing.assert_array_equal(row.data, whole.data[row.row, 0])


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (DIFFUSION, {"target_standard_error": 1e-3, "max_network_evaluations": 2000}),
        ("digits-autoregressive", {"method": "smc", "observed": UPPER[:, ::-1], **REFINE}),
        ("digits-vae", REFINE),
    ],
)
def test_likelihoods_send_running_estimates(client: Client, model: str, options: dict[str, Any]) -> None:
    """Where the answer is refined until it is good enough."""
    events = list(client.stream_likelihood(model, ROWS[:2], seed=1, **options))
    assert isinstance(events[-1], Summary)
    last = events[-1].result
    whole = client.likelihood(model, ROWS[:2], seed=1, **options)
    np.testing.assert_array_equal(last.log_prob, whole.log_prob)
    estimates = of(events, Estimate)
    assert estimates, f"{model} says nothing before the end"
    for event in estimates:
        assert event.result.log_prob.shape == (2,)
        assert event.result.kind == last.kind
