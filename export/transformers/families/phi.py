"""Phi-1, 1.5 and 2 (Gunasekar et al. 2023): one norm per parallel block, partly rotary heads."""

from __future__ import annotations

from typing import Any

from export.graph.decoder import Decoder, DecoderBlock, Mlp
from export.transformers.families.common import activation, head, layer_norm, only
from export.transformers.refusal import unsupported
from export.transformers.rotary import rotary
from export.transformers.weights import Weights, joined

IGNORED = r"rotary_emb\.inv_freq$"


def describe(config: Any, weights: Weights, max_length: int) -> Decoder:
    """PhiForCausalLM."""
    only(config, "phi", qk_layernorm=False)
    width, heads = config.hidden_size, config.num_attention_heads
    table = rotary(config, "phi.modeling_phi", "PhiRotaryEmbedding", max_length)
    if (width // heads) % 8 or table.cosines.shape[1] % 8:
        problem = f"heads of {width // heads} channels, {2 * table.cosines.shape[1]} of them rotary"
        raise unsupported("phi", problem, "Both must be multiples of 16")
    return Decoder(
        token=weights.take("model.embed_tokens.weight", config.vocab_size, width),
        blocks=[_block(config, weights, index) for index in range(config.num_hidden_layers)],
        norm_out=layer_norm(weights, "model.final_layernorm", width, config.layer_norm_eps),
        head=head(config, weights, "lm_head", width, bias=True),
        heads=heads,
        kv_heads=config.num_key_value_heads or heads,
        head_dim=width // heads,
        max_length=max_length,
        rotary=table,
    )


def _block(config: Any, weights: Weights, index: int) -> DecoderBlock:
    name, width, inner = f"model.layers.{index}", config.hidden_size, config.intermediate_size
    size = width // config.num_attention_heads
    kv_width = size * (config.num_key_value_heads or config.num_attention_heads)
    parts = {"q_proj": width, "k_proj": kv_width, "v_proj": kv_width}
    act, approximate = activation(config.hidden_act, "phi")
    attention = f"{name}.self_attn"
    return DecoderBlock(
        norm_attention=layer_norm(weights, f"{name}.input_layernorm", width, config.layer_norm_eps),
        qkv=joined([weights.linear(f"{attention}.{p}", width, n, bias=True) for p, n in parts.items()]),
        project=weights.linear(f"{attention}.dense", width, width, bias=True),
        norm_mlp=None,
        mlp=Mlp(
            up=weights.linear(f"{name}.mlp.fc1", width, inner, bias=True),
            down=weights.linear(f"{name}.mlp.fc2", inner, width, bias=True),
            approximate=approximate,
            activation=act,
        ),
        parallel=True,
    )
