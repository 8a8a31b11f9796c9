"""The pipeline that other servers are given draws the images that our server draws."""

from __future__ import annotations

import numpy as np
import pytest

from serving.families.result import Sampled
from tests.benchmarks.engines import Loaded
from tests.benchmarks.gpt2 import served
from tests.benchmarks.peers_pipeline import PACKAGE, STEPS, Pipeline
from tests.benchmarks.peers_serving import PIXELS, labels, noise

ROWS = 4


@pytest.mark.slow
def test_peers_are_given_the_same_work() -> None:
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    start = np.stack([noise(seed).reshape(1, 8, 8) for seed in range(ROWS)])
    wanted = Pipeline()(start, labels(range(ROWS))).reshape(ROWS, PIXELS)
    with served(PACKAGE) as whole:
        loaded = Loaded(whole.engine, whole.model)
        requests = [loaded.sample("ddim", STEPS, 1, seed) for seed in range(ROWS)]
        for seed, request in enumerate(requests):
            request.conditions["label"][:] = seed % 10
        found = []
        for result in whole.results(requests):
            assert isinstance(result, Sampled)
            found.append(np.asarray(result.data, np.int64).reshape(PIXELS))
    assert np.abs(np.stack(found) - wanted).max() <= 1
    assert (np.stack(found) == wanted).mean() > 0.99
