"""A small U-Net with attention for 8x8 images, and the three denoisers that are made of it.

Ronneberger et al. 2015 (U-Net), Ho et al. 2020 (time embedding, attention at the coarse level). Written
without strided convolutions, so that its vector-Jacobian product needs no output padding: resolution
changes by moving pixels between space and channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

CLASSES = 10
NULL_CLASS = 10


class ResidualBlock(nn.Module):
    """Two convolutions around a shift by the embedding; [rows, in, H, W] -> [rows, out, H, W]."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(8, channels_in)
        self.conv_in = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.shift = nn.Linear(embedding, channels_out)
        self.norm_out = nn.GroupNorm(8, channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)
        self.activation = nn.SiLU()
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``embedding`` float32 [rows, embedding]."""
        h = self.conv_in(self.activation(self.norm_in(x)))
        h = h + self.shift(embedding)[:, :, None, None]
        h = self.conv_out(self.dropout(self.activation(self.norm_out(h))))
        out: Tensor = self.skip(x) + h
        return out


class SpatialAttention(nn.Module):
    """Self-attention among the positions of an image, with a residual connection."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.project.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, C, H, W] -> [rows, C, H, W]."""
        rows, channels, height, width = x.shape
        size = channels // self.heads
        packed = self.qkv(self.norm(x)).reshape(rows, 3, self.heads, size, height * width)
        query, key, value = packed[:, 0], packed[:, 1], packed[:, 2]  # [rows, heads, size, positions]
        weights = torch.softmax(query.transpose(2, 3) @ key / math.sqrt(size), dim=-1)
        mixed = value @ weights.transpose(2, 3)
        out: Tensor = x + self.project(mixed.reshape(rows, channels, height, width))
        return out


class TimeEmbedding(nn.Module):
    """Sines and cosines of a time in [0, 1000], then two linear layers: [rows] -> [rows, width]."""

    def __init__(self, frequencies: int, width: int) -> None:
        super().__init__()
        rates = torch.exp(-math.log(10_000.0) * torch.arange(frequencies) / frequencies)
        self.register_buffer("rates", rates, persistent=False)
        self.rates: Tensor
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """``t`` float32 [rows]."""
        angles = t[:, None] * self.rates
        embedded: Tensor = self.layers(torch.cat([torch.cos(angles), torch.sin(angles)], dim=1))
        return embedded


class UNet(nn.Module):
    """[rows, 1, 8, 8], times in [0, 1000] and classes (10 = none) -> [rows, 1, 8, 8]."""

    def __init__(self, fine: int = 32, coarse: int = 48, *, conditional: bool, dropout: float = 0.1) -> None:
        super().__init__()
        width = 4 * fine
        self.time = TimeEmbedding(fine // 2, width)
        self.label = nn.Embedding(CLASSES + 1, width) if conditional else None
        self.conv_in = nn.Conv2d(1, fine, 3, padding=1)
        self.fine_down = ResidualBlock(fine, fine, width, dropout)
        self.down = nn.Conv2d(4 * fine, coarse, 1)
        self.coarse_down = ResidualBlock(coarse, coarse, width, dropout)
        self.attend_down = SpatialAttention(coarse, 3)
        self.middle = ResidualBlock(coarse, coarse, width, dropout)
        self.coarse_up = ResidualBlock(2 * coarse, coarse, width, dropout)
        self.attend_up = SpatialAttention(coarse, 3)
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.fine_up = ResidualBlock(2 * fine, fine, width, dropout)
        self.norm_out = nn.GroupNorm(8, fine)
        self.conv_out = nn.Conv2d(fine, 1, 3, padding=1)
        self.activation = nn.SiLU()
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """``x`` float32 [rows, 1, 8, 8], ``t`` float32 [rows], ``label`` int64 [rows]."""
        embedding = self.time(t)
        if self.label is not None and label is not None:
            embedding = embedding + self.label(label)
        embedding = self.activation(embedding)
        fine = self.fine_down(self.conv_in(x), embedding)
        coarse = self.down(torch.pixel_unshuffle(fine, 2))
        coarse = self.attend_down(self.coarse_down(coarse, embedding))
        h = self.middle(coarse, embedding)
        h = self.attend_up(self.coarse_up(torch.cat([h, coarse], dim=1), embedding))
        h = torch.pixel_shuffle(self.up(h), 2)
        h = self.fine_up(torch.cat([h, fine], dim=1), embedding)
        out: Tensor = self.conv_out(self.activation(self.norm_out(h)))
        return out


class EpsilonDenoiser(nn.Module):
    """DDPM: the noise in x_t, from x_t and the training step t in 0..999 (Ho et al. 2020, eq. 14)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = UNet(conditional=True)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """``prediction``: epsilon float32 [rows, 1, 8, 8]."""
        out: Tensor = self.network(x, t, label)
        return out


class FlowDenoiser(nn.Module):
    """Flow matching: e - x_0, from x_s = (1 - s) x_0 + s e and s in [0, 1] (Lipman et al. 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = UNet(conditional=True)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """``prediction``: flow float32 [rows, 1, 8, 8]."""
        out: Tensor = self.network(x, 1000.0 * t, label)
        return out


class ScoreDenoiser(nn.Module):
    """Variance exploding: grad log p_sigma(x), preconditioned as Karras et al. 2022 (table 1).

    D = x sd^2 / (s^2 + sd^2) + F s sd / sqrt(s^2 + sd^2), and the score is (D - x) / s^2; written out, no
    difference of nearly equal numbers is left.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 10.0, sigma_data: float = 0.75) -> None:
        super().__init__()
        self.network = UNet(conditional=False)
        self.log_min = math.log(sigma_min)
        self.log_range = math.log(sigma_max) - self.log_min
        self.sigma_data = sigma_data

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """``t``: sigma float32 [rows]; ``prediction``: score float32 [rows, 1, 8, 8]."""
        sigma = t[:, None, None, None]
        total = torch.sqrt(sigma * sigma + self.sigma_data**2)
        time = 1000.0 * (torch.log(t) - self.log_min) / self.log_range
        residual = self.network(x / total, time)
        out: Tensor = residual * self.sigma_data / (sigma * total) - x / (total * total)
        return out
