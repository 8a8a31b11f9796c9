"""Something for a server to do: several operations at once, streams, a cancel, refusals, a late request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np

from pxserve import Client, PxserveError

DIFFUSION, TEXT, VAE = "digits-diffusion", "text-autoregressive", "digits-vae"
MODELS = (DIFFUSION, TEXT, VAE)
PROMPT = "The import statement combines two operations; " * 3


def sample(client: Client) -> None:
    """Images of two sizes of work, beside one another."""
    client.sample(DIFFUSION, 4, label=3, steps=8)
    client.sample(VAE, 8)


def score(client: Client) -> None:
    """A likelihood, an anomaly score, a completion."""
    digits = np.zeros((2, 1, 8, 8), np.uint8)
    client.likelihood(VAE, digits)
    client.score_anomaly(VAE, digits)
    client.inpaint(VAE, digits, np.ones((1, 8, 8), np.bool_))


def write(client: Client) -> None:
    """Text after a prompt that takes several prefill runs."""
    client.sample(TEXT, 2, prompt=[PROMPT] * 2, max_new_tokens=16)


def stream(client: Client) -> None:
    """The three kinds of streams."""
    list(client.stream_sample(DIFFUSION, 1, preview_every_steps=2, steps=8))
    list(client.stream_sample(TEXT, 1, max_new_tokens=8))
    list(client.stream_likelihood(VAE, np.zeros((1, 1, 8, 8), np.uint8)))


def leave(client: Client) -> None:
    """Begin, and go away; be refused; be late."""
    events = client.stream_sample(DIFFUSION, 8, preview_every_steps=1, steps=50)
    next(events)
    next(events)
    events.close()
    refusals: list[Callable[[], object]] = [
        lambda: client.sample(DIFFUSION, -1),
        lambda: client.sample("nobody", 1),
        lambda: client.sample(DIFFUSION, 64, timeout_s=0.001),
    ]
    for refused in refusals:
        with suppress(PxserveError):
            refused()


@contextmanager
def loaded(target: str) -> Iterator[list[BaseException]]:
    """All of it again and again while the block runs; what went wrong, which should be nothing."""
    ended, errors = threading.Event(), list[BaseException]()

    def repeat(act: Callable[[Client], None]) -> None:
        with Client(target, timeout_s=30) as client:
            while not ended.is_set():
                try:
                    act(client)
                except Exception as error:
                    errors.append(error)
                    return
                ended.wait(0.05)

    threads = [threading.Thread(target=repeat, args=(act,)) for act in (sample, score, write, stream, leave)]
    for thread in threads:
        thread.start()
    try:
        yield errors
    finally:
        ended.set()
        for thread in threads:
            thread.join(40)
