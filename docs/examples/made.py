"""MADE (Germain et al. 2015): a masked multilayer perceptron over binary pixels in an order of its own.

pxserve-export module made:build --path docs/examples --to my-models --name my-made --license MIT
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.model import Autoregressive, Image

SIDE = 4
PIXELS = SIDE * SIDE


class MaskedLinear(nn.Linear):
    """A linear layer with a fixed mask [out, in]."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, in] -> [rows, out]."""
        return nn.functional.linear(x, self.weight * self.mask, self.bias)


class Made(nn.Module):
    """Binary pixels float32 [rows, 16] -> log-odds [rows, 16], pixel order[i] given order[:i]."""

    def __init__(self, order: Tensor, hidden: int = 64) -> None:
        super().__init__()
        rank = torch.argsort(order)  # of each pixel
        degree = torch.arange(hidden) % (PIXELS - 1)
        self.layers = nn.Sequential(
            MaskedLinear((degree[:, None] >= rank[None]).float()),
            nn.ReLU(),
            MaskedLinear((rank[:, None] > degree[None]).float()),
        )

    def forward(self, x: Tensor) -> Tensor:
        """All conditionals at once."""
        return self.layers(x)


def build() -> Autoregressive:
    """What the network is."""
    torch.manual_seed(0)
    order = torch.randperm(PIXELS)
    return Autoregressive(
        Made(order),
        tuple(order.tolist()),
        2,
        begin="none",
        holds="vector",  # as the pixels lie, whatever the order is
        reads="levels",
        gives="log_odds",
        data=Image(1, SIDE, SIDE, levels=2, data_range=(0, 1)),
    )
