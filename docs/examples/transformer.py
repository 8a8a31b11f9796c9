"""A small causal transformer over bytes, with a begin symbol.

pxserve-export module transformer:build --path docs/examples --to my-models --name my-text --license MIT
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.model import Autoregressive, BeginSymbol, Tokens

BYTES, END, LENGTH, WIDTH = 256, 256, 24, 32  # id 256 begins a row, and ends it


class Block(nn.Module):
    """Causal attention and a perceptron, each around a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.norm_mlp = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """[rows, length, width]."""
        q, k, v = self.qkv(self.norm(x)).unsqueeze(1).chunk(3, dim=-1)  # one head
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).squeeze(1)
        x = x + self.project(mixed)
        return x + self.mlp(self.norm_mlp(x))


class Transformer(nn.Module):
    """Ids int64 [rows, length] -> logits [rows, length, 257] of the next one."""

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(BYTES + 1, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
        self.head = nn.Linear(WIDTH, BYTES + 1)

    def forward(self, ids: Tensor) -> Tensor:
        """All conditionals at once."""
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.head(self.blocks(self.token(ids) + self.position(places)))


def build() -> Autoregressive:
    """What the network is."""
    torch.manual_seed(0)
    return Autoregressive(
        Transformer(),
        "raster",
        BYTES + 1,
        begin=BeginSymbol(END),
        end_symbol=END,
        any_length=True,
        data=Tokens(BYTES + 1, LENGTH, variable=True, tokenizer="bytes"),
    )
