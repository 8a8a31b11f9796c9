"""A plain PixelCNN (van den Oord et al. 2016): masked convolutions over gray levels.

pxserve-export module pixelcnn:build --path docs/examples --to my-models --name my-pixelcnn --license MIT
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.model import Autoregressive, Image, Network

LEVELS, SIDE = 17, 8


class MaskedConv(nn.Conv2d):
    """A convolution that sees the pixels above and to the left; type A leaves out the centre too."""

    def __init__(self, kind: str, inputs: int, outputs: int, size: int) -> None:
        super().__init__(inputs, outputs, size, padding=size // 2)
        mask = torch.ones(size, size)
        mask[size // 2, size // 2 + (kind == "B") :] = 0
        mask[size // 2 + 1 :] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, C, H, W]."""
        return self._conv_forward(x, self.weight * self.mask, self.bias)


class PixelCnn(nn.Module):
    """Pixels in [0, 1], float32 [rows, 1, 8, 8] -> logits [rows, 17, 8, 8], as cross_entropy takes them."""

    def __init__(self, channels: int = 16, layers: int = 3) -> None:
        super().__init__()
        self.first = MaskedConv("A", 1, channels, 5)
        self.hidden = nn.ModuleList(MaskedConv("B", channels, channels, 3) for _ in range(layers))
        self.last = nn.Conv2d(channels, LEVELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        """All conditionals at once."""
        x = self.first(x)
        for layer in self.hidden:
            x = x + layer(torch.relu(x))
        return self.last(torch.relu(x))


def build() -> Autoregressive:
    """What the network is. Load your weights here, with safetensors or torch.load(..., weights_only=True)."""
    torch.manual_seed(0)
    return Autoregressive(
        Network(PixelCnn()),
        "raster",
        LEVELS,
        begin="none",  # it reads the pixels themselves
        holds="image",
        reads="levels",
        symbols="first",
        data=Image(1, SIDE, SIDE, levels=LEVELS, data_range=(0, 1)),
    )
