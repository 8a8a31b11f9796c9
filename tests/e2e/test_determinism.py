"""The same seed gives the same bytes: alone, under load, split, at any position."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from export.zoo.data import digits
from pxserve import Client
from tests.e2e.conftest import IMAGE_MODELS, SAMPLING_MODELS

pytestmark = pytest.mark.xdist_group("e2e")

ROWS = digits().test.images[:4]
UPPER = np.arange(8)[None, :, None] * np.ones((1, 1, 8)) < 4


@pytest.mark.parametrize("name", SAMPLING_MODELS)
def test_a_split_request_equals_the_whole_one(client: Client, name: str) -> None:
    extra: dict[str, Any] = {"max_new_tokens": 24} if name.startswith("text") else {}
    whole = client.sample(name, 5, seed=11, **extra)
    parts = [client.sample(name, n, seed=11, first_row=first, **extra).data for first, n in ((0, 2), (2, 3))]
    width = whole.data.shape[1]
    joined = np.concatenate([padded(part, width) for part in parts])
    np.testing.assert_array_equal(joined, whole.data)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_completions_and_scores_of_a_row_do_not_depend_on_the_others(client: Client, name: str) -> None:
    whole = client.inpaint(name, ROWS, UPPER, n=2, seed=4)
    first = client.inpaint(name, ROWS[:1], UPPER, n=1, seed=4)
    np.testing.assert_array_equal(first.data[:, 0], whole.data[:1, 0])
    if name not in ("digits-gan", "digits-autoencoder"):
        scored = client.likelihood(name, ROWS, seed=4).log_prob
        last = client.likelihood(name, ROWS[3:], seed=4, first_row=3).log_prob
        np.testing.assert_array_equal(last, scored[3:])


def test_the_same_seed_gives_the_same_bytes_alone_and_under_load(client: Client) -> None:
    alone = {name: answer(client, name) for name in SAMPLING_MODELS}
    stop = threading.Event()
    load = [threading.Thread(target=keep_busy, args=(client, name, stop)) for name in SAMPLING_MODELS]
    for thread in load:
        thread.start()
    try:
        for name, expected in alone.items():
            np.testing.assert_array_equal(answer(client, name), expected, err_msg=name)
    finally:
        stop.set()
        for thread in load:
            thread.join()


def answer(client: Client, name: str) -> np.ndarray:
    extra: dict[str, Any] = {"max_new_tokens": 24} if name.startswith("text") else {}
    return client.sample(name, 3, seed=5, **extra).data


def keep_busy(client: Client, name: str, stop: threading.Event) -> None:
    for seed in range(200):
        if stop.is_set():
            return
        extra: dict[str, Any] = {"max_new_tokens": 24} if name.startswith("text") else {}
        client.sample(name, 1 + seed % 5, seed=seed, **extra)


def padded(data: np.ndarray, width: int) -> np.ndarray:
    """Rows of variable length are padded to the longest of their own reply."""
    if data.ndim != 2:
        return data
    return np.pad(data, ((0, 0), (0, width - data.shape[1])))
