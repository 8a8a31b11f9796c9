"""Three variational autoencoders (Kingma and Welling 2014): binary pixels, real ones, and gray levels.

pxserve-export module vae:bernoulli --path docs/examples --to my-models --name my-vae --license MIT
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.model import Bernoulli, DiscretizedLogistic, Gaussian, Image, Network, Vae

SIDE, LATENT = 8, 6
PIXELS = SIDE * SIDE


class Encoder(nn.Module):
    """Pixels [rows, 64] -> a dictionary with the mean and the log-variance of q(z | x), [rows, 6] each."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(PIXELS, 32), nn.ReLU(), nn.Dropout(0.1))
        self.mu, self.logvar = nn.Linear(32, LATENT), nn.Linear(32, LATENT)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Both heads."""
        h = self.body(x)
        return {"mu": self.mu(h), "logvar": self.logvar(h)}


class Decoder(nn.Module):
    """Latents [rows, 6] -> [rows, 64 * outputs]; a sigmoid at the end where ``probabilities``."""

    def __init__(self, outputs: int = 1, *, probabilities: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(LATENT, 32), nn.ReLU(), nn.Linear(32, PIXELS * outputs))
        self.last = nn.Sigmoid() if probabilities else nn.Identity()

    def forward(self, z: Tensor) -> Tensor:
        """Flat pixels."""
        return self.last(self.layers(z))


def _encoder() -> Network:
    return Network(Encoder(), outputs={"mean": "mu", "log_variance": "logvar"}, layout="flat")


def bernoulli() -> Vae:
    """Binarised pixels; the decoder ends in a sigmoid."""
    torch.manual_seed(0)
    return Vae(
        _encoder(),
        Network(Decoder(probabilities=True), layout="flat"),
        posterior="mean_logvar",
        observation=Bernoulli("probabilities"),
        latent_shape=(LATENT,),
        data=Image(1, SIDE, SIDE, levels=2, data_range=(0, 1)),
    )


def gaussian() -> Vae:
    """Real pixels in [0, 1] with a fixed standard deviation, which the squared error alone does not state."""
    torch.manual_seed(1)
    return Vae(
        _encoder(),
        Network(Decoder(probabilities=True), layout="flat"),
        posterior="mean_logvar",
        observation=Gaussian(0.1),
        latent_shape=(LATENT,),
        data=Image(1, SIDE, SIDE, levels=0),
    )


class ImageDecoder(nn.Module):
    """Latents [rows, 6] -> means and log-scales as two channels, [rows, 2, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(LATENT, 16 * 16)
        self.up = nn.ConvTranspose2d(16, 2, 4, stride=2, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """One tensor with both."""
        return self.up(torch.relu(self.start(z)).reshape(-1, 16, 4, 4))


def logistic() -> Vae:
    """Gray levels as discretised logistics (Salimans et al. 2017); the decoder packs both parameters."""
    torch.manual_seed(2)
    return Vae(
        _encoder(),
        ImageDecoder(),
        posterior="mean_logvar",
        observation=DiscretizedLogistic("log_scale"),
        packed_observation=True,
        latent_shape=(LATENT,),
        data=Image(1, SIDE, SIDE, levels=17, data_range=(-1, 1)),
    )
