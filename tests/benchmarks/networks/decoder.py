"""A decoder of GPT-2's architecture (Radford et al. 2019) in torch alone, over a slotted key/value cache.

Parameters carry the names of transformers' GPT2LMHeadModel; its projections are stored [in, out].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from kernels import attention  # noqa: F401 - registers torch.ops.pxserve.decode_attention

PARAMETERS = 124_439_808


@dataclass(frozen=True)
class Size:
    """Width, depth and vocabulary; the defaults are GPT-2's."""

    layers: int = 12
    heads: int = 12
    width: int = 768
    vocabulary: int = 50_257
    max_length: int = 1024


class Projection(nn.Module):
    """x @ weight + bias, weight [in, out]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) * 0.02)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).reshape(*x.shape[:-1], -1)


class SelfAttention(nn.Module):
    """Causal over a prefix, or one query over the cache."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.c_attn = Projection(size.width, 3 * size.width)
        self.c_proj = Projection(size.width, size.width)

    def prefill(self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """[rows, T, width]; writes the first T entries of the caches [rows, heads, max_length, D]."""
        rows, new, _ = x.shape
        split = self.c_attn(x).reshape(rows, new, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        keys[:, :, :new], values[:, :, :new] = split[1], split[2]
        mixed = functional.scaled_dot_product_attention(split[0], split[1], split[2], is_causal=True)
        out: torch.Tensor = self.c_proj(mixed.transpose(1, 2).reshape(x.shape))
        return out

    def decode(
        self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, past: torch.Tensor
    ) -> torch.Tensor:
        """[rows, width] after ``past`` [rows] entries; appends one entry per row."""
        rows = x.shape[0]
        query, key, value = self.c_attn(x).reshape(rows, 3, self.heads, -1).unbind(1)
        slot = torch.arange(rows, device=x.device)
        keys[slot, :, past], values[slot, :, past] = key, value
        mixed = torch.ops.pxserve.decode_attention(query, keys, values, past + 1)
        out: torch.Tensor = self.c_proj(mixed.reshape(rows, -1))
        return out


class Perceptron(nn.Module):
    """Two projections with GELU between them (the tanh form)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = Projection(width, 4 * width), Projection(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., width] -> the same."""
        out: torch.Tensor = self.c_proj(functional.gelu(self.c_fc(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """Attention and perceptron, each after a norm, each residual."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.attn, self.mlp = SelfAttention(size), Perceptron(size.width)


class Decoder(nn.Module):
    """Logits of the next token; the head shares the token embedding."""

    def __init__(self, size: Size | None = None) -> None:
        super().__init__()
        self.size = size = size or Size()
        self.wte = nn.Embedding(size.vocabulary, size.width)
        self.wpe = nn.Embedding(size.max_length, size.width)
        self.h = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.ln_f = nn.LayerNorm(size.width)
        for embedding in (self.wte, self.wpe):
            nn.init.normal_(embedding.weight, std=0.02)

    def cache(self, rows: int, length: int) -> torch.Tensor:
        """Zeros [layers, 2, rows, heads, length, D] of the weights' dtype and device."""
        heads, width = self.size.heads, self.size.width
        shape = (self.size.layers, 2, rows, heads, length, width // heads)
        return self.wte.weight.new_zeros(shape)

    def prefill(self, tokens: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        """[rows, T] -> logits of the last position [rows, vocabulary]; fills the cache."""
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for index, block in enumerate(self.h):
            assert isinstance(block, Block)
            x = x + block.attn.prefill(block.ln_1(x), cache[index, 0], cache[index, 1])
            x = x + block.mlp(block.ln_2(x))
        return functional.linear(self.ln_f(x[:, -1]), self.wte.weight)

    def forward(self, tokens: torch.Tensor, past: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        """One token [rows] after ``past`` [rows] others -> logits [rows, vocabulary]; extends the cache."""
        x = self.wte(tokens) + self.wpe(past)
        for index, block in enumerate(self.h):
            assert isinstance(block, Block)
            x = x + block.attn.decode(block.ln_1(x), cache[index, 0], cache[index, 1], past)
            x = x + block.mlp(block.ln_2(x))
        return functional.linear(self.ln_f(x), self.wte.weight)
