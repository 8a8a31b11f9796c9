"""What the model cards promise, measured through the server on data that no model saw."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.svm import SVC

from export.zoo.data import digits
from pxserve import Client
from tests.e2e.conftest import SAMPLING_MODELS

pytestmark = pytest.mark.xdist_group("e2e")


@pytest.fixture(scope="module")
def classifier() -> SVC:
    """Recognises the real digits; its own accuracy on the test split is checked first."""
    splits = digits()
    fitted = SVC(gamma=0.001 * 256 / 64, C=10).fit(flat(splits.train.images), splits.train.labels)
    assert fitted.score(flat(splits.test.images), splits.test.labels) > 0.97
    return fitted


@pytest.mark.parametrize("name", ["digits-diffusion", "digits-autoregressive"])
def test_conditional_samples_are_recognised_as_their_class(
    client: Client, classifier: SVC, name: str
) -> None:
    labels = np.repeat(np.arange(10), 20)
    samples = client.sample(name, len(labels), label=labels, seed=17)
    assert np.mean(classifier.predict(flat(samples.data)) == labels) >= 0.9


@pytest.mark.parametrize("name", [n for n in SAMPLING_MODELS if n.startswith("digits")])
def test_unconditional_samples_cover_the_ten_classes(client: Client, classifier: SVC, name: str) -> None:
    samples = client.sample(name, 200, seed=23)
    counts = np.bincount(classifier.predict(flat(samples.data)), minlength=10)
    assert counts.min() >= 2


def flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / 16.0
