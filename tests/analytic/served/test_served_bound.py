"""The variational bound over the wire against its own closed form, never against ln p."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pxserve import Client
from pxserve.results import LikelihoodKind
from tests.analytic.served.packages import COVARIANCE3, MEAN3
from tests.analytic.served.recursion import gain_of, posterior, vp
from tests.analytic.served.truth import Floats, Normal, Z

pytestmark = pytest.mark.xdist_group("analytic")

DATA = Normal(MEAN3, COVARIANCE3)
STEPS = 40


def expected_error(x0: Floats, alpha: float, sigma: float) -> Floats:
    """E ||x0 - E[x0 | x]||^2 over the noise of x = alpha x0 + sigma e [rows]."""
    gain = gain_of(DATA, alpha, sigma)
    shrunk = (x0 - DATA.mean) @ (np.eye(3) - alpha * gain).T
    return np.asarray(np.square(shrunk).sum(axis=1) + sigma**2 * np.square(gain).sum(), np.float64)


def closed_form(x0: Floats) -> dict[str, Floats]:
    """Prior, steps and a Gaussian decoder as wide as the lowest level's noise (Ho et al. 2020, eq. 5)."""
    levels = vp(STEPS)
    (alpha, sigma), (low_alpha, low_sigma) = levels[0], levels[-2]
    ratio = sigma**2
    prior = -0.5 * (3 * (ratio - 1 - np.log(ratio)) + alpha**2 * np.square(x0).sum(axis=1))
    steps = np.zeros(len(x0))
    for here, after in pairwise(levels[:-1]):
        _, b, c = posterior(*here, *after)
        steps -= b**2 / (2 * c**2) * expected_error(x0, *here)
    sd = low_sigma / low_alpha
    decoder = -expected_error(x0, low_alpha, low_sigma) / (2 * sd**2) - 3 * np.log(sd * np.sqrt(2 * np.pi))
    return {"prior": prior, "steps": steps, "decoder": decoder}


def test_the_bound_has_its_closed_form_within_its_standard_error(client: Client) -> None:
    x0 = DATA.draw(200, np.random.default_rng(1))
    scored = client.likelihood("gaussian-vp", x0, method="variational_bound", steps=STEPS, probes=12, seed=4)
    assert scored.kind is LikelihoodKind.STOCHASTIC_LOWER_BOUND
    assert scored.standard_error is not None
    truth = closed_form(x0.astype(np.float64))
    np.testing.assert_allclose(scored.terms["prior"], truth["prior"], rtol=1e-5)
    z = (scored.log_prob - sum(truth.values())) / scored.standard_error
    assert abs(z.mean()) * np.sqrt(200) < Z
    assert 0.5 < np.square(z).mean() < 2.0  # 12 draws estimate their own spread
    np.testing.assert_allclose(sum(scored.terms.values()), scored.log_prob, rtol=1e-9)


def test_the_bound_is_below_the_density_in_the_mean(client: Client) -> None:
    """With a perfect network, the posterior's variance and few steps it loses nats, as it is known to."""
    x0 = DATA.draw(200, np.random.default_rng(2))
    scored = client.likelihood("gaussian-vp", x0, method="variational_bound", steps=STEPS, probes=2, seed=4)
    assert (DATA.log_density(x0) - scored.log_prob).mean() > 1.0
