"""Parameters of the contract over the wire: steps of Reconstruct, entropy maps, listed masks and prompts."""

from __future__ import annotations

import numpy as np
import pytest

from pxserve import Client, PxserveError
from tests.analytic.served.packages import FLOW_COVARIANCE, FLOW_MEAN
from tests.analytic.served.truth import CHAIN, Normal, floats

pytestmark = pytest.mark.xdist_group("analytic")


def test_reconstruct_takes_steps(client: Client) -> None:
    x = Normal(FLOW_MEAN, FLOW_COVARIANCE).draw(20, np.random.default_rng(4))
    there_and_back = client.decode(
        "gaussian-flow", client.encode("gaussian-flow", x, steps=8).latents, steps=8
    )
    few = client.reconstruct("gaussian-flow", x, steps=8)
    np.testing.assert_array_equal(few.data, there_and_back.data)
    assert few.error.max() > client.reconstruct("gaussian-flow", x, steps=128).error.max()


def test_steps_are_refused_where_there_are_none(client: Client) -> None:
    with pytest.raises(PxserveError, match="no such parameter") as caught:
        client.reconstruct("pca-autoencoder", np.zeros((1, 4), np.float32), steps=8)
    assert caught.value.code.name == "INVALID_ARGUMENT"


def test_completions_of_symbols_have_an_entropy_map(client: Client) -> None:
    words = CHAIN.draw(3, np.random.default_rng(8))
    observed = np.arange(words.shape[1]) % 2 == 0
    found = client.inpaint("chain", words, observed, n=2, seed=1, entropy=True)
    assert found.mean is None
    assert found.entropy is not None
    assert found.entropy.dtype == np.float32
    assert found.entropy.shape == words.shape
    assert (found.entropy[:, observed] == 0.0).all()
    assert (floats(found.entropy)[:, ~observed] > 0.0).all()
    assert client.inpaint("chain", words, observed, n=2, seed=1).entropy is None
