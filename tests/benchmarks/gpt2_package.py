"""GPT-2's architecture with random weights as a package: one graph that decodes and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn
from torch.nn import functional

from export.graph import cached_decoder as graph
from export.graph.interface import onnx_component
from export.graph.onnx import to_bytes
from export.graph.quantize import Quantization
from export.graph.store import Beside
from export.package.write import staging, write_package
from tests.benchmarks.networks.decoder import Block, Decoder, Projection, Size

REPOSITORY = Path("build/bench-models")
MAX_LENGTH = 256  # of the caches; the network has more positions


class Scorer(nn.Module):
    """All logits of whole rows: tokens [rows, length] -> [rows, length, vocabulary]."""

    def __init__(self, network: Decoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Causal attention over the row itself, no cache."""
        network = self.network
        x = network.wte(tokens) + network.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in network.h:
            assert isinstance(block, Block)
            x = x + self._attend(block, block.ln_1(x))
            x = x + block.mlp(block.ln_2(x))
        return functional.linear(network.ln_f(x), network.wte.weight)

    def _attend(self, block: Block, x: torch.Tensor) -> torch.Tensor:
        rows, length, width = x.shape
        query, key, value = (
            part.reshape(rows, length, block.attn.heads, -1).transpose(1, 2)
            for part in block.attn.c_attn(x).split(width, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: torch.Tensor = block.attn.c_proj(mixed.transpose(1, 2).reshape(rows, length, width))
        return out


def network_of(size: Size | None = None, seed: int = 0) -> Decoder:
    """Random weights."""
    torch.manual_seed(seed)
    return Decoder(size).eval()


def gpt2_package(
    network: Decoder,
    name: str = "gpt2-124m",
    to: Path = REPOSITORY,
    quantization: Quantization | None = None,
) -> Path:
    """The package's folder; written at the first use."""
    folder = to / name / "2"
    if folder.is_dir():
        return folder
    with staging(to, name) as stage:
        with Beside(stage / "decoder.onnx.data") as store:
            model = graph.build_cached_decoder(
                describe(network), selective=True, store=store, quantization=quantization
            )
        (stage / "decoder.onnx").write_bytes(to_bytes(model))
        files = {file: stage / file for file in ("decoder.onnx", "decoder.onnx.data")}
        return write_package(specification(name, network.size, model), dict(files), to, 2)


def describe(network: Decoder) -> graph.Decoder:
    """The network in the layout of a cached decoder."""
    size = network.size
    return graph.Decoder(
        token=_array(network.wte.weight),
        position=_array(network.wpe.weight),
        blocks=[_block(block) for block in network.h if isinstance(block, Block)],
        norm_out=_norm(network.ln_f),
        head=None,
        heads=size.heads,
        kv_heads=size.heads,
        head_dim=size.width // size.heads,
        max_length=_cached(size),
    )


def _block(block: Block) -> graph.DecoderBlock:
    return graph.DecoderBlock(
        norm_attention=_norm(block.ln_1),
        qkv=_linear(block.attn.c_attn),
        project=_linear(block.attn.c_proj),
        norm_mlp=_norm(block.ln_2),
        mlp=graph.Mlp(up=_linear(block.mlp.c_fc), down=_linear(block.mlp.c_proj)),
    )


def _norm(norm: nn.LayerNorm) -> graph.Norm:
    return graph.Norm(_array(norm.weight), _array(norm.bias), norm.eps)


def _linear(projection: Projection) -> graph.Linear:
    return graph.Linear(_array(projection.weight), _array(projection.bias))


def _array(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().numpy()
    return array


def _cached(size: Size) -> int:
    return min(MAX_LENGTH, size.max_length)


def specification(name: str, size: Size, model: onnx.ModelProto) -> dict[str, Any]:
    """Rows of up to 256 tokens; the last token of the vocabulary begins a row, and none ends it."""
    return {
        "format_version": 1,
        "name": name,
        "family": "autoregressive",
        "description": "GPT-2 architecture, random weights",
        "license": "Apache-2.0",
        "data": {
            "kind": "tokens",
            "axes": ["position"],
            "shape": [-1],
            "dtype": "int32",
            "levels": size.vocabulary,
            "max_length": _cached(size),
        },
        "components": {"decoder": onnx_component(model, "decoder.onnx")},
        "autoregressive": {
            "vocabulary": size.vocabulary,
            "begin_symbol": size.vocabulary - 1,
            "cache": {
                "layers": size.layers,
                "kv_heads": size.heads,
                "head_dim": size.width // size.heads,
                "max_length": _cached(size),
            },
        },
        "parity": {"max_abs_error": 0.0, "max_rel_error": 0.0, "inputs": "not compared: random weights"},
    }
