"""GPT-2 (Radford et al. 2019)."""

from __future__ import annotations

from typing import Any

from export.graph.decoder import Decoder, DecoderBlock, Mlp, Norm
from export.transformers.families.common import activation, head, layer_norm, only
from export.transformers.weights import Weights

IGNORED = r"\.attn\.(bias|masked_bias)$"


def describe(config: Any, weights: Weights, max_length: int) -> Decoder:
    """GPT2LMHeadModel."""
    only(config, "gpt2", add_cross_attention=False)
    width = config.n_embd
    return Decoder(
        token=weights.take("transformer.wte.weight", config.vocab_size, width),
        position=weights.take("transformer.wpe.weight", config.n_positions, width),
        blocks=[block(config, weights, index, _norm) for index in range(config.n_layer)],
        norm_out=_norm(config, weights, "transformer.ln_f"),
        head=head(config, weights, "lm_head", width),
        heads=config.n_head,
        kv_heads=config.n_head,
        head_dim=width // config.n_head,
        max_length=max_length,
    )


def block(config: Any, weights: Weights, index: int, norm: Any) -> DecoderBlock:
    """One block; ``norm`` makes its norms, by which ImageGPT differs."""
    name, width = f"transformer.h.{index}", config.n_embd
    inner = config.n_inner or 4 * width
    act, approximate = activation(config.activation_function, "gpt2")
    return DecoderBlock(
        norm_attention=norm(config, weights, f"{name}.ln_1"),
        qkv=weights.convolution(f"{name}.attn.c_attn", width, 3 * width),
        project=weights.convolution(f"{name}.attn.c_proj", width, width),
        norm_mlp=norm(config, weights, f"{name}.ln_2"),
        mlp=Mlp(
            up=weights.convolution(f"{name}.mlp.c_fc", width, inner),
            down=weights.convolution(f"{name}.mlp.c_proj", inner, width),
            approximate=approximate,
            activation=act,
        ),
        scale=_scale(config, index),
    )


def _scale(config: Any, index: int) -> float | None:
    if config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx:
        return None
    scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
    return scale / (index + 1) if config.scale_attn_by_inverse_layer_idx else scale


def _norm(config: Any, weights: Weights, name: str) -> Norm:
    return layer_norm(weights, name, config.n_embd, config.layer_norm_epsilon)
