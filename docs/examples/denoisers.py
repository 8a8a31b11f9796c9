"""A class-conditional DDPM, a score network, and a flow-matching model around one small U-Net.

pxserve-export module denoisers:ddpm --path docs/examples --to my-models --name my-ddpm --license MIT
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.model import (
    ClassCondition,
    Diffusion,
    GeometricSigmas,
    Image,
    LinearBetas,
    Network,
    StraightPath,
    Vector,
)

CLASSES = 10
NULL = CLASSES  # what the label was replaced by, one time in ten, so that guidance is possible
DATA = Image(1, 8, 8, levels=17, data_range=(-1, 1))


@dataclass
class Output:
    """What the network returns."""

    sample: Tensor


class UNet(nn.Module):
    """x [rows, 1, 8, 8], timesteps int64 [rows], classes int64 [rows] -> ``Output``."""

    def __init__(self, width: int = 16, steps: int = 1000) -> None:
        super().__init__()
        self.time, self.label = nn.Embedding(steps, width), nn.Embedding(CLASSES + 1, width)
        self.conv_in, self.down = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, width, 3, 2, 1)
        self.up = nn.ConvTranspose2d(width, width, 4, 2, 1)
        self.conv_out = nn.Conv2d(2 * width, 1, 3, padding=1)
        self.norm = nn.GroupNorm(4, width)

    def forward(self, sample: Tensor, timesteps: Tensor, class_labels: Tensor) -> Output:
        """The noise in ``sample``."""
        embedding = self.time(timesteps) + self.label(class_labels)
        fine = self.conv_in(sample) + embedding[:, :, None, None]
        coarse = torch.relu(self.down(torch.relu(self.norm(fine))))
        return Output(self.conv_out(torch.cat([fine, self.up(coarse)], dim=1)))


def ddpm() -> Diffusion:
    """Ho et al. 2020, class-conditional with a null class."""
    torch.manual_seed(0)
    network = Network(UNet(), inputs={"t": "timesteps", "label": "class_labels"})
    return Diffusion(
        network,
        LinearBetas(1000, 1e-4, 0.02),
        "epsilon",
        "step",
        time_dtype="int64",
        clip=True,
        steps=20,
        conditions=(ClassCondition("label", CLASSES, null_value=NULL),),
        data=DATA,
    )


class Mlp(nn.Module):
    """x [rows, size] and a time [rows, 1] -> [rows, size]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size + 1, 64), nn.SiLU(), nn.Linear(64, size))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """What is predicted depends on how it was trained."""
        return self.layers(torch.cat([x, t], dim=1))


def score() -> Diffusion:
    """Song and Ermon 2019: grad log p of flat images, told ln sigma."""
    torch.manual_seed(1)
    return Diffusion(
        Network(Mlp(64), layout="flat"),
        GeometricSigmas(0.01, 10.0, steps=200),
        "score",
        "log_sigma",
        time_shape=(1,),
        steps=20,
        data=DATA,
    )


def flow() -> Diffusion:
    """Lipman et al. 2023 on vectors of three numbers; it was trained from noise (0) to data (1)."""
    torch.manual_seed(2)
    return Diffusion(
        Mlp(3),
        StraightPath(),
        "flow_reversed",
        "reversed_fraction",
        time_shape=(1,),
        steps=20,
        data=Vector(3),
    )
