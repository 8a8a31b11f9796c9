"""What a day brings, in minutes: every model, most operations, cancelled, late and wrong requests too."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from pxserve import Client, PxserveError

DIGITS = np.random.default_rng(0).integers(0, 17, (4, 1, 8, 8)).astype(np.uint8)
UPPER = np.broadcast_to(np.arange(8)[:, None] < 4, (8, 8))
TEXTS = ["The import statement", "A list is"]
EXPECTED = {"INVALID_ARGUMENT", "DEADLINE_INFEASIBLE", "DEADLINE_MISSED", "DEADLINE_EXCEEDED", "QUEUE_FULL",
            "NOT_READY", "UNLOADING"}  # fmt: skip

Ask = Callable[[Client, int], Any]


def cancelled(client: Client, seed: int) -> None:
    """A stream whose reader leaves after its first event."""
    stream = client.stream_sample("digits-diffusion", 8, steps=50, seed=seed)
    next(stream)
    stream.close()


def reloaded(client: Client, seed: int) -> None:
    """A model that goes away and comes back."""
    client.unload_model("digits-autoencoder")
    client.load_model("digits-autoencoder", wait=True)


ASKS: tuple[Ask, ...] = (
    lambda c, s: c.sample("digits-diffusion", 1 + s % 4, steps=5 + s % 20, seed=s, label=s % 10),
    lambda c, s: c.sample("digits-diffusion", 2, sampler="dpmpp_2m", guidance_scale=2.0, label=1, seed=s),
    lambda c, s: c.sample("digits-score", 1, steps=20, seed=s),
    lambda c, s: c.sample("digits-flow", 2, steps=10, seed=s),
    lambda c, s: c.sample("digits-gan", 8, seed=s),
    lambda c, s: c.sample("digits-autoregressive", 2, seed=s, temperature=0.9),
    lambda c, s: c.sample("digits-pixelcnn", 1, seed=s),
    lambda c, s: c.sample("text-autoregressive", 2, prompt=TEXTS[s % 2], max_new_tokens=1 + s % 30, seed=s),
    lambda c, s: c.likelihood("digits-vae", DIGITS, importance_samples=16, seed=s),
    lambda c, s: c.likelihood("digits-autoregressive", DIGITS[: 1 + s % 4]),
    lambda c, s: c.likelihood("text-autoregressive", TEXTS),
    lambda c, s: c.likelihood("digits-diffusion", DIGITS[:1], steps=10, seed=s),
    lambda c, s: c.inpaint("digits-vae", DIGITS[:1], UPPER, n=1 + s % 3, seed=s),
    lambda c, s: c.inpaint("digits-diffusion", DIGITS[:1], UPPER, method="replacement", steps=10, seed=s),
    lambda c, s: c.score_anomaly("digits-autoencoder", DIGITS),
    lambda c, s: c.encode("digits-vae", DIGITS),
    lambda c, s: c.reconstruct("digits-autoencoder", DIGITS),
    lambda c, s: c.interpolate("digits-vae", DIGITS[:1], DIGITS[1:2], points=4),
    lambda c, s: list(c.stream_sample("text-autoregressive", 1, prompt="A ", max_new_tokens=16, seed=s)),
    lambda c, s: c.sample("digits-diffusion", 4, steps=200, seed=s, timeout_s=0.05),
    lambda c, s: c.sample("digits-diffusion", 1, steps=10**6),
    lambda c, s: c.get_model("digits-diffusion"),
    cancelled,
)  # fmt: skip


class MixedLoad:
    """Callers with a pause between their requests; what they were told, by reason."""

    def __init__(self, target: str, callers: int, pause_s: float, reload_every_s: float) -> None:
        self.told: Counter[str] = Counter()
        self._target = target
        self._pause_s = pause_s
        self._reload_every_s = reload_every_s
        self._done = threading.Event()
        self._seeds = itertools.count()
        self._threads = [threading.Thread(target=self._call, args=(k,)) for k in range(callers)]
        self._threads.append(threading.Thread(target=self._reload))

    @property
    def unexpected(self) -> dict[str, int]:
        """What nobody should be told."""
        return {reason: n for reason, n in self.told.items() if reason not in {"OK", *EXPECTED}}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Calls from the beginning of the block to its end."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._done.set()
            for thread in self._threads:
                thread.join()

    def _call(self, number: int) -> None:
        choice = random.Random(number)
        with Client(self._target, timeout_s=60.0) as client:
            while not self._done.wait(self._pause_s * choice.random() * 2.0):
                self._ask(choice.choice(ASKS), client)

    def _reload(self) -> None:
        with Client(self._target, timeout_s=60.0) as client:
            while not self._done.wait(self._reload_every_s):
                self._ask(reloaded, client)

    def _ask(self, ask: Ask, client: Client) -> None:
        try:
            ask(client, next(self._seeds))
        except PxserveError as error:
            self.told[error.reason] += 1
        else:
            self.told["OK"] += 1


def sampled(measure: Callable[[], float], seconds: float, every_s: float) -> np.ndarray[Any, Any]:
    """[samples, 2] (seconds since the start, value)."""
    begun, found = time.monotonic(), []
    while (now := time.monotonic() - begun) < seconds:
        found.append((now, measure()))
        time.sleep(every_s)
    return np.array(found)


def slope_per_hour(samples: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Least-squares slope and its standard error, per hour.

    Neighbouring samples are not independent: the error is that of twenty block means.
    """
    blocks = np.array([block.mean(0) for block in np.array_split(samples, 20)])
    hours, values = blocks[:, 0] / 3600.0, blocks[:, 1]
    centred = hours - hours.mean()
    slope = float(centred @ values / (centred @ centred))
    residual = values - values.mean() - slope * centred
    error = float(np.sqrt(residual @ residual / (len(hours) - 2) / (centred @ centred)))
    return slope, error
