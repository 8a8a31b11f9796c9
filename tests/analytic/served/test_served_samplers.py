"""Samplers over the wire against the exact law of their own affine recursion, derived here once more."""

from __future__ import annotations

import numpy as np
import pytest

from pxserve import Client
from tests.analytic.diffusion.gaussian import COVARIANCE, MEAN
from tests.analytic.latent.closed_form import SIGMA, B, W
from tests.analytic.served.packages import COVARIANCE3, MEAN3, SCALE, SHIFT
from tests.analytic.served.recursion import deterministic, flow, posterior, recursion, ve, vp
from tests.analytic.served.truth import VAE, Floats, Normal, Z, floats, largest_z, many

pytestmark = pytest.mark.xdist_group("analytic")


def in_data_space(law: Normal) -> Normal:
    return Normal((law.mean - SHIFT) / SCALE, law.covariance / SCALE**2)


LAWS = {
    ("gaussian-vp", "ddim", 10): recursion(Normal(MEAN3, COVARIANCE3), vp(10), deterministic, 1.0),
    ("gaussian-vp", "ddpm", 100): recursion(Normal(MEAN3, COVARIANCE3), vp(100), posterior, 1.0),
    ("gaussian-ve", "euler", 20): recursion(Normal(MEAN, COVARIANCE), ve(20), deterministic, 20.0),
    ("gaussian-edm", "ddim", 10): recursion(Normal(MEAN, COVARIANCE), ve(10), deterministic, 20.0),
    ("gaussian-edm", "ancestral", 25): recursion(Normal(MEAN, COVARIANCE), ve(25), posterior, 20.0),
    ("gaussian-flow", "euler", 20): in_data_space(
        recursion(Normal(MEAN, COVARIANCE), flow(20), deterministic, 1.0)
    ),
}
DATA = {
    "gaussian-vp": Normal(MEAN3, COVARIANCE3),
    "gaussian-ve": Normal(MEAN, COVARIANCE),
    "gaussian-edm": Normal(MEAN, COVARIANCE),
    "gaussian-flow": in_data_space(Normal(MEAN, COVARIANCE)),
}


def drawn(client: Client, model: str, sampler: str, steps: int, rows: int) -> Floats:
    return many(
        lambda n, first: client.sample(model, n, seed=3, first_row=first, sampler=sampler, steps=steps), rows
    )


@pytest.mark.parametrize(("model", "sampler", "steps"), LAWS)
def test_samples_have_the_law_of_their_recursion(
    client: Client, model: str, sampler: str, steps: int
) -> None:
    rows = 4096 if steps > 50 else 16_384
    draws = drawn(client, model, sampler, steps, rows)
    assert largest_z(draws, LAWS[model, sampler, steps]) < Z


@pytest.mark.parametrize(("model", "sampler", "steps"), [key for key in LAWS if key[2] <= 10])
def test_a_coarse_sampler_does_not_have_the_data_s_law(
    client: Client, model: str, sampler: str, steps: int
) -> None:
    """Negative control: the draws are enough to tell the recursion's law from the data's."""
    assert largest_z(drawn(client, model, sampler, steps, 4096), DATA[model]) > Z


def test_the_torchscript_twin_draws_the_same_rows(client: Client) -> None:
    one, other = (
        floats(client.sample(name, 256, seed=3, sampler="euler", steps=20).data)
        for name in ("gaussian-flow", "gaussian-flow-script")
    )
    np.testing.assert_allclose(one, other, atol=2e-5)


def test_a_vae_draws_observations_and_its_means_are_narrower(client: Client) -> None:
    noisy = many(lambda n, first: client.sample("vae-exact", n, seed=5, first_row=first), 16_384)
    assert largest_z(noisy, VAE) < Z
    means = many(
        lambda n, first: client.sample("vae-exact", n, seed=5, first_row=first, observation_noise=False), 4096
    )
    assert largest_z(means, VAE) > Z  # negative control: W W^T without the noise is another law
    widened = np.asarray(means) + SIGMA * np.random.default_rng(0).standard_normal(means.shape)
    assert largest_z(widened, VAE) < Z


def test_a_linear_generator_draws_on_its_plane(client: Client) -> None:
    draws = many(lambda n, first: client.sample("linear-gan", n, seed=5, first_row=first), 8192)
    latents = np.linalg.lstsq(W, (draws - B).T, rcond=None)[0].T
    np.testing.assert_allclose(latents @ W.T + B, draws, atol=1e-5)
    assert largest_z(latents, Normal(np.zeros(2), np.eye(2))) < Z
