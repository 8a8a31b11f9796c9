"""Small networks as people write them, and the models that tests make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.model import Diffusion, Gan, Image, LinearBetas, Model
from export.package.errors import PackageError

IMAGE = Image(1, 4, 4, levels=17, data_range=(-1, 1))


class Denoiser(nn.Module):
    """A convolution around a time embedding; ``wrong`` names what is wrong with it."""

    def __init__(self, wrong: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wrong = wrong
        self.conv_in = nn.Conv2d(1, 8, 3, padding=1)
        self.time = nn.Linear(1, 8)
        self.conv_out = nn.Conv2d(8, 1, 3, padding=1)
        self.norm = nn.BatchNorm2d(8, track_running_stats=wrong != "batch statistics")

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x [rows, 1, 4, 4], t [rows]."""
        h = self.conv_in(x)
        if self.wrong == "branch on values" and x.mean() > 0:
            h = -h
        if self.wrong == "python loop over values":
            for _ in range(int(t.sum().item()) % 3):
                h = h + 1
        if self.wrong == "fixed rows":
            h = h.reshape(5, 8, 4, 4)
        if self.wrong == "dropout":
            h = F.dropout(h, 0.5)
        if self.wrong == "unsupported":
            h = h + torch.linalg.eigvalsh(h @ h.transpose(2, 3))[..., None]
        h = torch.relu(self.norm(h) + self.time(t[:, None])[:, :, None, None])
        out: Tensor = self.conv_out(h)
        return out


class Generator(nn.Module):
    """Latents [rows, 8] to images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(8, 16)

    def forward(self, latent: Tensor) -> Tensor:
        """Bounded by tanh."""
        return torch.tanh(self.layer(latent)).reshape(-1, 1, 4, 4)


def diffusion(network: Any, **changed: Any) -> Diffusion:
    """A model around a denoiser of such images."""
    known = {"prediction": "epsilon", "time": "step", "data": IMAGE, "license": "MIT"}
    return Diffusion(network, LinearBetas(10), **{**known, **changed})


def gan(network: Any, **changed: Any) -> Gan:
    """A model around a generator of such images."""
    return Gan(network, **{"latent_shape": (8,), "data": IMAGE, "license": "MIT", **changed})


def refusal(model: Model, to: Path, **options: Any) -> PackageError:
    """How the export of ``model`` is refused; nothing may be left behind."""
    try:
        model.export(to, "wrong", **options)
    except PackageError as error:
        assert not list(to.rglob("*")), "something was left behind"
        return error
    raise AssertionError("the export was not refused")
