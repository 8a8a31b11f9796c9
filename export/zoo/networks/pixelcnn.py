"""Gated PixelCNN without a blind spot (van den Oord et al. 2016, "Conditional Image Generation").

Masked convolutions are written as shifted and one-sided padded ones, which is the same and cheaper: the
vertical stack sees the rows above, the horizontal stack the pixels to the left and the vertical stack.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 8


def gate(x: Tensor) -> Tensor:
    """tanh of the first half of the channels times sigmoid of the second."""
    value, opening = x.chunk(2, dim=1)
    return torch.tanh(value) * torch.sigmoid(opening)


class GatedLayer(nn.Module):
    """One layer of both stacks; each stack is [rows, C, 8, 8]."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.vertical = nn.Conv2d(channels, 2 * channels, (2, 3))
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, 2))
        self.down = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        self.vertical_out = nn.Conv2d(channels, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vertical: Tensor, horizontal: Tensor) -> tuple[Tensor, Tensor]:
        """New vertical and horizontal features."""
        above = self.vertical(F.pad(self.dropout(vertical), (1, 1, 1, 0)))
        left = self.horizontal(F.pad(self.dropout(horizontal), (1, 0, 0, 0)))
        mixed = horizontal + self.out(gate(left + self.down(above)))
        return vertical + self.vertical_out(gate(above)), mixed


class PixelCnn(nn.Module):
    """``tokens`` int64 [rows, 64] (raster) -> ``logits`` [rows, 64, 17]; logits i see tokens before i."""

    def __init__(self, levels: int = 17, channels: int = 32, layers: int = 7, dropout: float = 0.15) -> None:
        super().__init__()
        self.levels = levels
        self.embed = nn.Embedding(levels, channels)
        self.position = nn.Parameter(torch.zeros(1, channels, SIDE, SIDE))
        self.layers = nn.ModuleList(GatedLayer(channels, dropout) for _ in range(layers))
        self.hidden = nn.Conv2d(channels, 2 * channels, 1)
        self.out = nn.Conv2d(2 * channels, levels, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """All 64 conditionals at once."""
        x = self.embed(tokens).transpose(1, 2).reshape(-1, self.embed.embedding_dim, SIDE, SIDE)
        vertical = F.pad(x, (0, 0, 1, 0))[:, :, :SIDE] + self.position
        horizontal = F.pad(x, (1, 0, 0, 0))[:, :, :, :SIDE] + self.position
        for layer in self.layers:
            vertical, horizontal = layer(vertical, horizontal)
        logits = self.out(F.relu(self.hidden(F.relu(horizontal))))
        out: Tensor = logits.reshape(-1, self.levels, SIDE * SIDE).transpose(1, 2)
        return out
