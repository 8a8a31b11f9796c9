"""The decoder with a cache against plain torch, with the parts that the zoo does not have: RMSNorm, a gated
perceptron, fewer key heads than query heads, rotary positions."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import torch
import torch.nn.functional as F
from torch import Tensor

from export.graph.cached_decoder import Decoder, DecoderBlock, Linear, Mlp, Norm, Rotary, build_cached_decoder
from export.graph.onnx import to_bytes

WIDTH, HEADS, KV_HEADS, SIZE, LENGTH, IDS = 32, 4, 2, 16, 24, 11


def rotary() -> Rotary:
    rates = 10_000.0 ** (-np.arange(0, SIZE, 2) / SIZE)
    angles = np.arange(LENGTH)[:, None] * rates
    return Rotary(np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))


def decoder() -> Decoder:
    rng = np.random.default_rng(0)

    def linear(inputs: int, outputs: int) -> Linear:
        return Linear((rng.normal(size=(inputs, outputs)) / inputs**0.5).astype(np.float32))

    def norm() -> Norm:
        return Norm(rng.uniform(0.5, 1.5, WIDTH).astype(np.float32), None, 1e-6)

    def block() -> DecoderBlock:
        qkv = linear(WIDTH, (HEADS + 2 * KV_HEADS) * SIZE)
        mlp = Mlp(up=linear(WIDTH, 48), down=linear(48, WIDTH), gate=linear(WIDTH, 48))
        return DecoderBlock(norm(), qkv, linear(HEADS * SIZE, WIDTH), norm(), mlp)

    token = rng.normal(size=(IDS, WIDTH)).astype(np.float32)
    blocks = [block(), block()]
    return Decoder(token, blocks, norm(), linear(WIDTH, IDS), HEADS, KV_HEADS, SIZE, LENGTH, rotary=rotary())


def apply(linear: Linear, x: Tensor) -> Tensor:
    return x @ torch.from_numpy(linear.weight)


def normed(norm: Norm, x: Tensor) -> Tensor:
    return F.rms_norm(x, (WIDTH,), torch.from_numpy(norm.weight), norm.epsilon)


def rotated(x: Tensor, table: Rotary) -> Tensor:
    """[rows, heads, length, size]: the first half of the channels against the second."""
    cosines, sines = (torch.from_numpy(t)[: x.shape[2]] for t in (table.cosines, table.sines))
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


def reference(network: Decoder, tokens: Tensor) -> Tensor:
    x = torch.from_numpy(network.token)[tokens]
    rows, length = tokens.shape
    assert network.rotary is not None
    for block in network.blocks:
        packed = (
            apply(block.qkv, normed(block.norm_attention, x)).reshape(rows, length, -1, SIZE).transpose(1, 2)
        )
        query, key, value = packed[:, :HEADS], packed[:, HEADS:-KV_HEADS], packed[:, -KV_HEADS:]
        query, key = rotated(query, network.rotary), rotated(key, network.rotary)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        x = x + apply(block.project, mixed.transpose(1, 2).reshape(rows, length, -1))
        assert block.norm_mlp is not None
        assert block.mlp.gate is not None
        h = normed(block.norm_mlp, x)
        x = x + apply(block.mlp.down, F.silu(apply(block.mlp.gate, h)) * apply(block.mlp.up, h))
    assert network.head is not None
    return apply(network.head, normed(network.norm_out, x))


def test_llama_style_blocks_decode_as_torch_does() -> None:
    network = decoder()
    session = ort.InferenceSession(
        to_bytes(build_cached_decoder(network)), providers=["CPUExecutionProvider"]
    )
    tokens = np.random.default_rng(1).integers(0, IDS, (3, LENGTH))
    cache = {
        value.name: np.zeros((3, KV_HEADS, LENGTH, SIZE), np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past")
    }
    found = []
    for i in range(LENGTH):
        lengths = {"seqlens_k": np.full(3, i, np.int32), "total_sequence_length": np.array(i + 1, np.int32)}
        logits, *present = session.run(None, {"tokens": tokens[:, i : i + 1], **lengths, **cache})
        cache = dict(zip(cache, present, strict=True))
        found.append(logits)
    wanted = reference(network, torch.from_numpy(tokens)).numpy()
    np.testing.assert_allclose(np.concatenate(found, axis=1), wanted, atol=2e-5)
