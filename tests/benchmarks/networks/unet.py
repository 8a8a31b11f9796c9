"""The U-Net of google/ddpm-cifar10-32 (Ho et al. 2020, 35.7 million parameters) in torch alone.

Parameters carry the names of diffusers' UNet2DModel, so that its weights load here and ours load there.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

CIFAR10 = (128, 256, 256, 256)
PARAMETERS = 35_746_307
_GROUPS, _EPS, _BLOCKS = 32, 1e-6, 2


class ResnetBlock(nn.Module):
    """Two convolutions with a time embedding between them, and a shortcut."""

    def __init__(self, channels: int, out: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, channels, _EPS)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, out)
        self.norm2 = nn.GroupNorm(_GROUPS, out, _EPS)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """[rows, channels, H, W] and [rows, embedding] -> [rows, out, H, W]."""
        h: torch.Tensor = self.conv1(functional.silu(self.norm1(x)))
        h = h + self.time_emb_proj(functional.silu(embedding))[:, :, None, None]
        h = self.conv2(functional.silu(self.norm2(h)))
        shortcut: torch.Tensor = self.conv_shortcut(x)
        return shortcut + h


class Attention(nn.Module):
    """Single-head self-attention over pixels, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(_GROUPS, channels, _EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, channels, H, W] -> the same."""
        rows, channels, height, width = x.shape
        h = self.group_norm(x).reshape(rows, channels, -1).transpose(1, 2).unsqueeze(1)
        mixed = functional.scaled_dot_product_attention(self.to_q(h), self.to_k(h), self.to_v(h))
        out: torch.Tensor = self.to_out[0](mixed.squeeze(1))
        return x + out.transpose(1, 2).reshape(rows, channels, height, width)


class Downsample(nn.Module):
    """Halve the resolution; padding on the far sides only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, channels, H, W] -> [rows, channels, H/2, W/2]."""
        out: torch.Tensor = self.conv(functional.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Double the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, channels, H, W] -> [rows, channels, 2H, 2W]."""
        out: torch.Tensor = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Stage(nn.Module):
    """The blocks of one resolution, on the way down, in the middle, or up."""

    def __init__(self, pairs: list[tuple[int, int]], embedding: int, attend: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, out, embedding) for channels, out in pairs)
        self.attentions = nn.ModuleList(Attention(out) for _, out in pairs) if attend else None
        self.downsamplers: nn.ModuleList | None = None
        self.upsamplers: nn.ModuleList | None = None

    def step(self, index: int, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Block ``index`` and its attention."""
        x = self.resnets[index](x, embedding)
        return x if self.attentions is None else self.attentions[index](x)


class Middle(nn.Module):
    """Block, attention, block."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, embedding) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(channels)])

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """[rows, channels, H, W] -> the same."""
        x = self.attentions[0](self.resnets[0](x, embedding))
        out: torch.Tensor = self.resnets[1](x, embedding)
        return out


class TimeEmbedding(nn.Module):
    """Sinusoids of t, then two linear layers."""

    frequency: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, 4 * channels)
        self.linear_2 = nn.Linear(4 * channels, 4 * channels)
        half = channels // 2
        frequency = torch.exp(-math.log(10_000.0) * torch.arange(half) / (half - 1))
        self.register_buffer("frequency", frequency, persistent=False)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        """[rows] -> [rows, 4 * channels]."""
        angle = t[:, None].float() * self.frequency
        waves = torch.cat((angle.sin(), angle.cos()), dim=1).to(self.linear_1.weight.dtype)
        out: torch.Tensor = self.linear_2(functional.silu(self.linear_1(waves)))
        return out


class UNet(nn.Module):
    """Noise prediction; attention at the second resolution and in the middle."""

    def __init__(self, channels: tuple[int, ...] = CIFAR10) -> None:
        super().__init__()
        embedding, last = 4 * channels[0], len(channels) - 1
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(channels[0])
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        for index, (before, out) in enumerate(pairwise((channels[0], *channels))):
            stage = Stage([(before, out)] + [(out, out)] * (_BLOCKS - 1), embedding, index == 1)
            stage.downsamplers = nn.ModuleList([Downsample(out)]) if index < last else None
            self.down_blocks.append(stage)
        self.mid_block = Middle(channels[-1], embedding)
        up = channels[::-1]
        for index, out in enumerate(up):
            before, skip = up[max(0, index - 1)], up[min(last, index + 1)]
            pairs = [(before + out, out)] + [(2 * out, out)] * (_BLOCKS - 1) + [(out + skip, out)]
            stage = Stage(pairs, embedding, index == last - 1)
            stage.upsamplers = nn.ModuleList([Upsample(out)]) if index < last else None
            self.up_blocks.append(stage)
        self.conv_norm_out = nn.GroupNorm(_GROUPS, channels[0], _EPS)
        self.conv_out = nn.Conv2d(channels[0], 3, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """[rows, 3, H, W] and [rows] -> [rows, 3, H, W]."""
        embedding = self.time_embedding(t)
        x = self.conv_in(x)
        skips = [x]
        for stage in self.down_blocks:
            assert isinstance(stage, Stage)
            for index in range(_BLOCKS):
                x = stage.step(index, x, embedding)
                skips.append(x)
            if stage.downsamplers is not None:
                x = stage.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block(x, embedding)
        for stage in self.up_blocks:
            assert isinstance(stage, Stage)
            for index in range(_BLOCKS + 1):
                x = stage.step(index, torch.cat((x, skips.pop()), dim=1), embedding)
            if stage.upsamplers is not None:
                x = stage.upsamplers[0](x)
        out: torch.Tensor = self.conv_out(functional.silu(self.conv_norm_out(x)))
        return out
