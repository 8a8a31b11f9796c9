"""SelfTest over the wire: right packages pass what applies, and a broken one fails."""

from __future__ import annotations

import pytest

from pxserve import Client
from pxserve.models import Check

pytestmark = pytest.mark.xdist_group("analytic")

SEED = 7
PASSING = {
    "chain": {"latents_of_samples", "sampling_log_prob", "p_values_uniform", "completion_invariance"},
    "chain-script": {"latents_of_samples", "sampling_log_prob", "completion_invariance"},
    "gaussian-flow": {"round_trip_error", "completion_invariance", "likelihood_finite"},
    "gaussian-vp": {"round_trip", "likelihood_finite"},
    "linear-gan": {"given_entries", "round_trip"},
    "pca-autoencoder": {"given_entries", "round_trip_error"},
    "vae-exact": {"bounds_ordered", "annealed_bound", "completion_invariance", "p_values_uniform"},
    "vae-wrong": {"bounds_ordered", "annealed_bound", "completion_invariance"},
}
EVERYWHERE = {"same_seed", "split", "batch_independence", "given_entries", "unobserved_entries"}


def checks(client: Client, model: str) -> dict[str, Check]:
    return {check.name: check for check in client.self_test(model, seed=SEED).checks}


@pytest.mark.parametrize("model", PASSING)
def test_right_packages_fail_nothing(client: Client, model: str) -> None:
    found = checks(client, model)
    assert {name for name, check in found.items() if check.verdict == "fail"} == set()
    passed = {name for name, check in found.items() if check.verdict == "pass"}
    assert passed >= EVERYWHERE | PASSING[model]


def test_a_network_that_mixes_rows_is_found(client: Client) -> None:
    """Rows move by far more than rounding: that its bits are not promised does not excuse it."""
    found = checks(client, "coupled-flow")["batch_independence"]
    assert found.verdict == "fail"
    assert found.holds_for_any_weights
    assert "more than rounding" in found.detail
