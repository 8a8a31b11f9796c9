"""A decoder-only transformer with learned positions (Radford et al. 2019, "GPT-2"), small.

Pre-norm blocks, tanh-approximated GELU, untied output layer. Sequences are scored whole here; decoding
with a key/value cache runs the same weights as a graph of its own (``export.graph.cached_decoder``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TransformerShape:
    """Sizes of a decoder-only transformer."""

    inputs: int  # ids that may be fed in, begin symbols included
    vocabulary: int  # ids that may come out
    max_length: int
    width: int
    layers: int
    heads: int
    dropout: float = 0.1

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.width // self.heads


DIGITS = TransformerShape(inputs=28, vocabulary=17, max_length=64, width=96, layers=3, heads=3, dropout=0.15)
TEXT = TransformerShape(inputs=257, vocabulary=257, max_length=256, width=128, layers=3, heads=4, dropout=0.1)


class Block(nn.Module):
    """Causal self-attention, then a two-layer perceptron, each around a residual connection."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm_attention = nn.LayerNorm(shape.width)
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.project = nn.Linear(shape.width, shape.width)
        self.norm_mlp = nn.LayerNorm(shape.width)
        self.mlp_in = nn.Linear(shape.width, 4 * shape.width)
        self.mlp_out = nn.Linear(4 * shape.width, shape.width)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, length, width] -> [rows, length, width]."""
        rows, length, width = x.shape
        packed = self.qkv(self.norm_attention(x)).reshape(rows, length, 3, self.heads, width // self.heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)  # [rows, heads, length, head_dim]
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.dropout(self.project(mixed.transpose(1, 2).reshape(rows, length, width)))
        hidden = F.gelu(self.mlp_in(self.norm_mlp(x)), approximate="tanh")
        out: Tensor = x + self.dropout(self.mlp_out(hidden))
        return out


class CausalTransformer(nn.Module):
    """``tokens`` int64 [rows, length] -> ``logits`` float32 [rows, length, vocabulary]."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.shape = shape
        self.token = nn.Embedding(shape.inputs, shape.width)
        self.position = nn.Embedding(shape.max_length, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm_out = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.dropout = nn.Dropout(shape.dropout)
        self.apply(self._initialise)

    def forward(self, tokens: Tensor) -> Tensor:
        """``logits[:, i]`` predicts the symbol after ``tokens[:, : i + 1]``."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.token(tokens) + self.position(positions))
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(self.norm_out(x))
        return out

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.04)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
