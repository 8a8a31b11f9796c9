"""A DCGAN (Radford et al. 2016), alone, and with its discriminator and an encoder.

pxserve-export module gan:build --path docs/examples --to my-models --name my-gan --license MIT --vjp
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.model import Gan, Image

LATENT = 16
DATA = Image(3, 8, 8, levels=256, data_range=(-1, 1))


def generator() -> nn.Module:
    """Latents [rows, 16, 1, 1] -> images [rows, 3, 8, 8] in [-1, 1]."""
    return nn.Sequential(
        nn.ConvTranspose2d(LATENT, 16, 4),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 3, 4, stride=2, padding=1),
        nn.Tanh(),
    )


def discriminator() -> nn.Module:
    """Images -> the probability that they are real, [rows, 1, 1, 1]."""
    return nn.Sequential(nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 1, 4), nn.Sigmoid())


class Encoder(nn.Module):
    """Images -> latents [rows, 16, 1, 1], where an inversion starts."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, LATENT, 4))

    def forward(self, x: Tensor) -> Tensor:
        """One latent per image."""
        return self.layers(x)


def build() -> Gan:
    """The generator alone, trained on uniform latents."""
    torch.manual_seed(0)
    return Gan(generator(), latent_shape=(LATENT, 1, 1), latent_uniform=(-1, 1), data=DATA)


def complete() -> Gan:
    """With a discriminator that ends in a sigmoid, and an encoder."""
    torch.manual_seed(1)
    return Gan(
        generator(),
        discriminator(),
        Encoder(),
        latent_shape=(LATENT, 1, 1),
        scores="probabilities",
        data=DATA,
    )
