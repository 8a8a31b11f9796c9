"""OPT (Zhang et al. 2022): learned positions that begin at 2."""

from __future__ import annotations

from typing import Any

from export.graph.decoder import Decoder, DecoderBlock, Mlp
from export.transformers.families.common import activation, head, layer_norm, only
from export.transformers.weights import Weights, joined

IGNORED = r"^$"
FIRST_POSITION = 2
EPSILON = 1e-5  # torch's default; the configuration has none


def describe(config: Any, weights: Weights, max_length: int) -> Decoder:
    """OPTForCausalLM."""
    width = config.hidden_size
    only(
        config,
        "opt",
        do_layer_norm_before=True,
        word_embed_proj_dim=width,
        _remove_final_layer_norm=False,
        layer_norm_elementwise_affine=True,
    )
    positions = config.max_position_embeddings + FIRST_POSITION
    return Decoder(
        token=weights.take("model.decoder.embed_tokens.weight", config.vocab_size, width),
        position=weights.take(
            "model.decoder.embed_positions.weight", positions, width, change=lambda v: v[FIRST_POSITION:]
        ),
        blocks=[_block(config, weights, index) for index in range(config.num_hidden_layers)],
        norm_out=layer_norm(weights, "model.decoder.final_layer_norm", width, EPSILON),
        head=head(config, weights, "lm_head", width),
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        head_dim=width // config.num_attention_heads,
        max_length=max_length,
    )


def _block(config: Any, weights: Weights, index: int) -> DecoderBlock:
    name, width, inner = f"model.decoder.layers.{index}", config.hidden_size, config.ffn_dim
    biased = bool(config.enable_bias)
    attention = f"{name}.self_attn"
    act, approximate = activation(config.activation_function, "opt")
    parts = [f"{attention}.{part}_proj" for part in "qkv"]
    return DecoderBlock(
        norm_attention=layer_norm(weights, f"{name}.self_attn_layer_norm", width, EPSILON),
        qkv=joined([weights.linear(part, width, width, bias=biased) for part in parts]),
        project=weights.linear(f"{attention}.out_proj", width, width, bias=biased),
        norm_mlp=layer_norm(weights, f"{name}.final_layer_norm", width, EPSILON),
        mlp=Mlp(
            up=weights.linear(f"{name}.fc1", width, inner, bias=biased),
            down=weights.linear(f"{name}.fc2", inner, width, bias=biased),
            approximate=approximate,
            activation=act,
        ),
    )
