"""Every operation of every reference model answers, or says why not and what to use instead."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.demo.server import Running
from export.zoo.data import digits, text
from pxserve import Client, PxserveError
from tests.e2e.conftest import IMAGE_MODELS, SAMPLING_MODELS, TEXT_MODELS

pytestmark = pytest.mark.xdist_group("e2e")

HANDWRITING = digits().test.images[:3]
UPPER = np.arange(8)[None, :, None] * np.ones((1, 1, 8)) < 4


def test_the_server_becomes_ready(server: Running) -> None:
    # The promise is ten seconds on two quiet cores (see docs/benchmarks.md); tests share theirs.
    assert server.start_s < 40.0


def test_nine_models_are_ready(client: Client) -> None:
    models = client.list_models()
    assert {model.name for model in models} == {*IMAGE_MODELS, *TEXT_MODELS}
    assert {model.state for model in models} == {"ready"}


@pytest.mark.parametrize("name", [*IMAGE_MODELS, *TEXT_MODELS])
def test_capabilities_say_everything_that_can_be_asked(client: Client, name: str) -> None:
    model = client.get_model(name)
    assert len(model.capabilities) == 8
    for capability in model.capabilities:
        if not capability.supported:
            assert len(capability.reason) > 20
            continue
        assert sum(method.is_default for method in capability.methods) == 1
        for method in capability.methods:
            assert method.kind
            assert method.row_seconds > 0


@pytest.mark.parametrize("name", SAMPLING_MODELS)
def test_samples_lie_in_the_data_space(client: Client, name: str) -> None:
    samples = client.sample(name, 2, seed=1)
    spec = client.get_model(name).data
    assert spec is not None
    assert samples.data.shape[0] == 2
    assert samples.data.min() >= 0
    assert samples.data.max() < spec.levels
    assert samples.provenance.seed == 1


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_completions_return_given_entries_bit_for_bit(client: Client, name: str) -> None:
    completed = client.inpaint(name, HANDWRITING, UPPER, n=2, seed=3)
    assert completed.data.shape == (3, 2, 1, 8, 8)
    given = np.broadcast_to(HANDWRITING[:, None], completed.data.shape)
    mask = np.broadcast_to(UPPER, completed.data.shape)
    np.testing.assert_array_equal(completed.data[mask], given[mask])


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_unobserved_entries_are_never_read(client: Client, name: str) -> None:
    other = np.where(UPPER, HANDWRITING, 16 - HANDWRITING).astype(np.uint8)
    first = client.inpaint(name, HANDWRITING[:1], UPPER, n=1, seed=3)
    second = client.inpaint(name, other[:1], UPPER, n=1, seed=3)
    np.testing.assert_array_equal(first.data, second.data)


@pytest.mark.parametrize("name", [n for n in IMAGE_MODELS if n not in ("digits-gan", "digits-autoencoder")])
def test_likelihoods_are_finite_with_consistent_units(client: Client, name: str) -> None:
    scored = client.likelihood(name, HANDWRITING, seed=5)
    assert np.isfinite(scored.log_prob).all()
    bits = -scored.log_prob / (scored.scored_dims * np.log(2))
    np.testing.assert_allclose(scored.bits_per_dim, bits, rtol=1e-12)
    assert (scored.bits_per_dim < np.log2(17)).all()
    if scored.terms:
        np.testing.assert_allclose(sum(scored.terms.values()), scored.log_prob, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["digits-gan", "digits-autoencoder"])
def test_models_without_a_density_explain_themselves(client: Client, name: str) -> None:
    with pytest.raises(PxserveError) as caught:
        client.likelihood(name, HANDWRITING)
    assert (caught.value.code.name, caught.value.reason) == ("FAILED_PRECONDITION", "OPERATION_UNDEFINED")
    assert "use" in caught.value.message


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_anomaly_scores_carry_conformal_p_values(client: Client, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 17, HANDWRITING.shape).astype(np.uint8)
    scored = client.score_anomaly(name, np.concatenate([HANDWRITING, noise]), seed=1)
    assert scored.calibration_size > 100
    assert scored.p_value is not None
    assert scored.p_value.min() > 0
    assert scored.p_value.max() <= 1
    assert scored.p_value[:3].mean() > scored.p_value[3:].mean()


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_reconstructions_resemble_what_was_given(client: Client, name: str) -> None:
    capability = next(c for c in client.get_model(name).capabilities if c.operation == "reconstruct")
    if not capability.supported:
        assert capability.reason
        return
    rebuilt = client.reconstruct(name, HANDWRITING, seed=2)
    mean_image = digits().train.images.mean(0)
    baseline = np.sqrt(((HANDWRITING - mean_image) ** 2).mean())
    assert np.mean(rebuilt.error) < baseline


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_interpolations_start_and_end_where_they_should(client: Client, name: str) -> None:
    capability = next(c for c in client.get_model(name).capabilities if c.operation == "interpolate")
    if not capability.supported:
        assert capability.reason
        return
    path = client.interpolate(name, HANDWRITING[:1], HANDWRITING[1:2], points=5, seed=2)
    assert path.data.shape == (1, 5, 1, 8, 8)
    start, end = path.data[0, 0].astype(float), path.data[0, -1].astype(float)
    assert np.abs(start - HANDWRITING[0]).mean() < np.abs(start - HANDWRITING[1]).mean()
    assert np.abs(end - HANDWRITING[1]).mean() < np.abs(end - HANDWRITING[0]).mean()


def test_text_goes_in_and_comes_out(client: Client) -> None:
    samples = client.sample(
        "text-autoregressive", 2, prompt="The import statement", max_new_tokens=20, seed=1
    )
    assert all(line.startswith("The import statement") for line in samples.text)
    scored = client.likelihood("text-autoregressive", [text().test[0].decode(), "zq xv kk jj"])
    assert scored.bits_per_dim[0] < scored.bits_per_dim[1]


def test_text_is_completed_around_what_is_given(client: Client) -> None:
    given = "the value of the object"
    observed = np.array([not 8 <= place < 12 for place in range(len(given))])
    completed = client.inpaint("text-autoregressive", [given], observed, n=3, particles=16, seed=2)
    assert len(completed.text) == 3
    for line in completed.text:
        assert (line[:8], line[12:]) == (given[:8], given[12:])
