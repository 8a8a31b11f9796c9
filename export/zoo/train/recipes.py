"""Train a reference model by name.

On one thread: the networks are too small for two to pay, and the order of sums stays the same, so the
same seed gives the same weights on the same machine and torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from export.zoo.graphs import commit_graphs
from export.zoo.registry import ENTRIES
from export.zoo.train import adversarial, autoregressive, diffusion, latent
from export.zoo.train.loop import Progress

RECIPES: dict[str, Callable[[Progress], nn.Module]] = {
    "digits-diffusion": diffusion.train_diffusion,
    "digits-autoregressive": autoregressive.train_digits_autoregressive,
    "digits-pixelcnn": autoregressive.train_digits_pixelcnn,
    "text-autoregressive": autoregressive.train_text_autoregressive,
    "digits-autoencoder": latent.train_digits_autoencoder,
    "digits-vae": latent.train_digits_vae,
    "digits-gan": adversarial.train_digits_gan,
    "digits-score": diffusion.train_score,
    "digits-flow": diffusion.train_flow,
}


def train(name: str, progress: Progress) -> Path:
    """Train ``name``, keep its weights in the zoo's folder, and export its graphs there; 2 to 12 minutes.

    Runs in a random state of its own: the caller's generator is untouched. TorchScript that comes out
    different must be listed in ``export.zoo.trusted`` again. Raises KeyError where there is no such model.
    """
    entry = ENTRIES[name]
    with torch.random.fork_rng(devices=[]), _one_thread():
        network = RECIPES[name](lambda message, done: progress(f"{name}: {message}", 0.95 * done))
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, entry.weights)
    commit_graphs(entry, lambda message, done: progress(message, 0.95 + 0.05 * done))
    return entry.weights


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
