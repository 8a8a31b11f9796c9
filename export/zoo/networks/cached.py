"""The reference transformer described for ``export.graph.cached_decoder``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from export.graph.cached_decoder import Decoder, DecoderBlock, Linear, Mlp, Norm
from export.zoo.networks.transformer import Block, CausalTransformer


def describe(network: CausalTransformer) -> Decoder:
    """Its weights in the layout of a cached decoder; float32."""
    shape = network.shape
    return Decoder(
        token=_array(network.token.weight),
        position=_array(network.position.weight),
        blocks=[_block(block) for block in network.blocks if isinstance(block, Block)],
        norm_out=_norm(network.norm_out),
        head=_linear(network.head),
        heads=shape.heads,
        kv_heads=shape.heads,
        head_dim=shape.head_dim,
        max_length=shape.max_length,
    )


def _block(block: Block) -> DecoderBlock:
    return DecoderBlock(
        norm_attention=_norm(block.norm_attention),
        qkv=_linear(block.qkv),
        project=_linear(block.project),
        norm_mlp=_norm(block.norm_mlp),
        mlp=Mlp(up=_linear(block.mlp_in), down=_linear(block.mlp_out)),
    )


def _norm(norm: nn.LayerNorm) -> Norm:
    return Norm(_array(norm.weight), _array(norm.bias), norm.eps)


def _linear(linear: nn.Linear) -> Linear:
    bias = None if linear.bias is None else _array(linear.bias)
    return Linear(_array(linear.weight).T, bias)


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().float().numpy()
    return array
