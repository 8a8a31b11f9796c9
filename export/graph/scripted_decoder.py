"""The decoder of ``cached_decoder`` as a torch module, traced to TorchScript: the same inputs and outputs.

Attention and the targets' log-probabilities are the operators ``pxserve::decode_attention`` and
``pxserve::gather_logprobs`` (kernels/), whose rows do not depend on one another. Every token is a query of
its own: keys and values of all of them are written into the caches first, and each attends to its own past,
so that a chunk of a prefix, several rows and a decoding step are one formula. Nothing waits for the device,
and a step can be captured in a CUDA graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from export.graph.cached_decoder import QUICK_GELU
from export.graph.decoder import Array, Decoder, DecoderBlock, Linear, Mlp, Norm, Weight, tensor_of
from export.package.operators import register_operators

PARTS = ("key", "value")


class ScriptedDecoder(nn.Module):
    """Module of a description, selective; weights in ``element``."""

    def __init__(self, decoder: Decoder, element: torch.dtype) -> None:
        super().__init__()
        register_operators()
        self.token = _constant(decoder.token, element)
        self.position = None if decoder.position is None else _constant(decoder.position, element)
        self.scale = decoder.embedding_scale
        self.last = decoder.max_length - 1
        rotary = None if decoder.rotary is None else _Rotary(decoder.rotary.cosines, decoder.rotary.sines)
        self.rotary = rotary
        self.blocks = nn.ModuleList(_Block(decoder, block, element) for block in decoder.blocks)
        self.norm_out = _Norm(decoder.norm_out, element)
        self.head = None if decoder.head is None else _Linear(decoder.head, element)

    def forward(
        self,
        tokens: torch.Tensor,
        seqlens_k: torch.Tensor,
        total_sequence_length: torch.Tensor,
        wanted: torch.Tensor,
        targets: torch.Tensor,
        *cache: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Logits and log_prob of the wanted predictions, float32, and the caches."""
        steps = torch.ones_like(tokens).cumsum(1) - 1  # made without naming a device
        first = (seqlens_k.long()[:, None] - steps[:, -1:]).clamp(min=0)
        place, slot = (first + steps).reshape(-1), (torch.ones_like(tokens).cumsum(0) - 1).reshape(-1)
        x = self._embedded(tokens.reshape(-1), place)
        turn = None if self.rotary is None else self.rotary(place.clamp(max=self.last))
        for layer, block in enumerate(self.blocks):
            x = block(x, turn, place, slot, cache[2 * layer], cache[2 * layer + 1])
        x = self.norm_out(x.index_select(0, wanted))
        logits = functional.linear(x, self.token) if self.head is None else self.head(x)
        log_prob = torch.ops.pxserve.gather_logprobs(logits, targets[:, None])
        return logits.float(), log_prob[:, 0], *cache

    def _embedded(self, tokens: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        x = functional.embedding(tokens, self.token)
        if self.scale is not None:
            x = x * self.scale
        if self.position is None:
            return x
        return x + functional.embedding(place.clamp(max=self.last), self.position)


class _Rotary(nn.Module):
    """Cosines and sines of a place, [rows, 1, rotated / 2] each."""

    def __init__(self, cosines: Array, sines: Array) -> None:
        super().__init__()
        self.cosines, self.sines = _constant(cosines, torch.float32), _constant(sines, torch.float32)

    def forward(self, place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return functional.embedding(place, self.cosines)[:, None], functional.embedding(place, self.sines)[
            :, None
        ]


class _Block(nn.Module):
    def __init__(self, decoder: Decoder, block: DecoderBlock, element: torch.dtype) -> None:
        super().__init__()
        self.widths = [decoder.heads, decoder.kv_heads, decoder.kv_heads]
        self.head_dim, self.scale, self.parallel = decoder.head_dim, block.scale, block.parallel
        self.norm_attention = _Norm(block.norm_attention, element)
        self.norm_mlp = None if block.norm_mlp is None else _Norm(block.norm_mlp, element)
        self.qkv, self.project = _Linear(block.qkv, element), _Linear(block.project, element)
        self.query_norm = None if block.query_norm is None else _Norm(block.query_norm, element)
        self.key_norm = None if block.key_norm is None else _Norm(block.key_norm, element)
        self.mlp = _Mlp(block.mlp, element)

    def forward(
        self, x: torch.Tensor, turn: Any, place: torch.Tensor, slot: torch.Tensor, keys: torch.Tensor,
        values: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        read = self.norm_attention(x)
        mixed = self.project(self._attention(read, turn, place, slot, keys, values))
        if not self.parallel:
            x = x + mixed
            return x + self.mlp(self.norm_mlp(x))  # type: ignore[misc,no-any-return]
        read = read if self.norm_mlp is None else self.norm_mlp(x)
        return x + mixed + self.mlp(read)  # type: ignore[no-any-return]

    def _attention(
        self, read: torch.Tensor, turn: Any, place: torch.Tensor, slot: torch.Tensor, keys: torch.Tensor,
        values: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        packed = self.qkv(read).reshape(-1, sum(self.widths), self.head_dim)
        query, key, value = packed.split(self.widths, dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if turn is not None:
            query, key = _turned(query, turn), _turned(key, turn)
        keys[slot, :, place], values[slot, :, place] = key, value
        mixed = torch.ops.pxserve.decode_attention(
            query.contiguous(), keys, values, place + 1, slot, self.scale
        )
        return mixed.reshape(-1, self.widths[0] * self.head_dim)  # type: ignore[no-any-return]


def _turned(x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Halves rotated in float32 (Su et al. 2021); channels beyond stay."""
    cosines, sines = turn
    half = cosines.shape[-1]
    first, second, rest = x[..., :half].float(), x[..., half : 2 * half].float(), x[..., 2 * half :]
    turned = torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
    return torch.cat([turned.to(x.dtype), rest], dim=-1)


class _Norm(nn.Module):
    """LayerNorm, or RMSNorm without a bias, in float32."""

    def __init__(self, norm: Norm, element: torch.dtype) -> None:
        super().__init__()
        self.weight, self.epsilon = _constant(norm.weight, element), norm.epsilon
        self.bias = None if norm.bias is None else _constant(norm.bias, element)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.bias is not None:
            return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)).to(
            x.dtype
        ) * self.weight


class _Linear(nn.Module):
    def __init__(self, linear: Linear, element: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(_loaded(linear.weight, element).t().contiguous(), requires_grad=False)
        self.bias = None if linear.bias is None else _constant(linear.bias, element)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight, self.bias)


class _Mlp(nn.Module):
    def __init__(self, mlp: Mlp, element: torch.dtype) -> None:
        super().__init__()
        self.up, self.down = _Linear(mlp.up, element), _Linear(mlp.down, element)
        self.gate = None if mlp.gate is None else _Linear(mlp.gate, element)
        self.act, self.approximate = mlp.act, mlp.approximate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.gate is None:
            return self.down(self._activated(self.up(x)))  # type: ignore[no-any-return]
        return self.down(self._activated(self.gate(x)) * self.up(x))  # type: ignore[no-any-return]

    def _activated(self, x: torch.Tensor) -> torch.Tensor:
        if self.act == "gelu":
            return functional.gelu(x, approximate=self.approximate)
        if self.act == "quick_gelu":
            return x * torch.sigmoid(QUICK_GELU * x)
        return functional.relu(x) if self.act == "relu" else functional.silu(x)


def _loaded(weight: Weight, element: torch.dtype) -> torch.Tensor:
    return tensor_of(weight).to(element)


def _constant(weight: Weight, element: torch.dtype) -> nn.Parameter:
    return nn.Parameter(_loaded(weight, element).clone(), requires_grad=False)


def example(decoder: Decoder, element: torch.dtype) -> dict[str, torch.Tensor]:
    """Inputs to trace with, in call order: two rows, the chunk of one of them shorter."""
    shape = (2, decoder.kv_heads, decoder.max_length, decoder.head_dim)
    new = min(2, decoder.max_length)
    inputs = {
        "tokens": torch.zeros((2, new), dtype=torch.int64),
        "seqlens_k": torch.tensor([new - 1, 0], dtype=torch.int32),
        "total_sequence_length": torch.tensor(new, dtype=torch.int32),
        "wanted": torch.tensor([0, 1]),
        "targets": torch.tensor([0, 0]),
    }
    return inputs | {name: torch.zeros(shape, dtype=element) for name in cache_names(decoder, "past")}


def cache_names(decoder: Decoder, when: str) -> list[str]:
    """``past_key_0``, ``past_value_0``, ``past_key_1``, ..."""
    return [f"{when}_{part}_{layer}" for layer in range(len(decoder.blocks)) for part in PARTS]


def component(decoder: Decoder, element: torch.dtype, file: str) -> dict[str, Any]:
    """The ``components`` entry of the traced module."""
    precision = str(element).removeprefix("torch.")
    shape = ["rows", decoder.kv_heads, "cached", decoder.head_dim]

    def caches(when: str) -> list[dict[str, Any]]:
        return [{"name": name, "dtype": precision, "shape": shape} for name in cache_names(decoder, when)]

    def port(name: str, dtype: str, *axes: str | int) -> dict[str, Any]:
        return {"name": name, "dtype": dtype, "shape": list(axes)}

    asked = [port(name, "int64", "predictions") for name in ("wanted", "targets")]
    tokens = [port("tokens", "int64", "rows", "new"), port("seqlens_k", "int32", "rows")]
    inputs = [*tokens, port("total_sequence_length", "int32"), *asked, *caches("past")]
    logits = port("logits", "float32", "predictions", decoder.vocabulary)
    outputs = [logits, port("log_prob", "float32", "predictions"), *caches("present")]
    return {
        "format": "torchscript",
        "file": file,
        "precision": precision,
        "inputs": inputs,
        "outputs": outputs,
    }


def takes(decoder: Decoder) -> bool:
    """Whether the attention operator takes its heads: a multiple of 16 channels each."""
    return decoder.head_dim % 16 == 0 and decoder.heads % decoder.kv_heads == 0
