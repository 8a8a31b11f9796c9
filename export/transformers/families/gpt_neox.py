"""GPT-NeoX and Pythia (Black et al. 2022; Biderman et al. 2023): parallel blocks, partly rotary heads."""

from __future__ import annotations

from typing import Any

import torch

from export.graph.decoder import Decoder, DecoderBlock, Linear, Mlp
from export.transformers.families.common import activation, head, layer_norm
from export.transformers.refusal import unsupported
from export.transformers.rotary import rotary
from export.transformers.weights import Weights

IGNORED = r"(rotary_emb\.inv_freq|attention\.(bias|masked_bias))$"


def describe(config: Any, weights: Weights, max_length: int) -> Decoder:
    """GPTNeoXForCausalLM."""
    width, heads = config.hidden_size, config.num_attention_heads
    table = rotary(config, "gpt_neox.modeling_gpt_neox", "GPTNeoXRotaryEmbedding", max_length)
    if (width // heads) % 8 or table.cosines.shape[1] % 8:
        problem = f"heads of {width // heads} channels, {2 * table.cosines.shape[1]} of them rotary"
        raise unsupported("gpt_neox", problem, "Both must be multiples of 16")
    return Decoder(
        token=weights.take("gpt_neox.embed_in.weight", config.vocab_size, width),
        blocks=[_block(config, weights, index) for index in range(config.num_hidden_layers)],
        norm_out=layer_norm(weights, "gpt_neox.final_layer_norm", width, config.layer_norm_eps),
        head=head(config, weights, "embed_out", width),
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        max_length=max_length,
        rotary=table,
    )


def _block(config: Any, weights: Weights, index: int) -> DecoderBlock:
    name, width, inner = f"gpt_neox.layers.{index}", config.hidden_size, config.intermediate_size
    act, approximate = activation(config.hidden_act, "gpt_neox")
    return DecoderBlock(
        norm_attention=layer_norm(weights, f"{name}.input_layernorm", width, config.layer_norm_eps),
        qkv=_packed(config, weights, f"{name}.attention.query_key_value"),
        project=weights.linear(f"{name}.attention.dense", width, width, bias=_biased(config)),
        norm_mlp=layer_norm(weights, f"{name}.post_attention_layernorm", width, config.layer_norm_eps),
        mlp=Mlp(
            up=weights.linear(f"{name}.mlp.dense_h_to_4h", width, inner, bias=True),
            down=weights.linear(f"{name}.mlp.dense_4h_to_h", inner, width, bias=True),
            approximate=approximate,
            activation=act,
        ),
        parallel=config.use_parallel_residual,
    )


def _biased(config: Any) -> bool:
    return bool(getattr(config, "attention_bias", True))


def _packed(config: Any, weights: Weights, name: str) -> Linear:
    """Stored head by head, each with its query, key and value; written as all queries, keys, values."""
    heads, width = config.num_attention_heads, config.hidden_size

    def apart(value: torch.Tensor) -> torch.Tensor:
        return value.reshape(heads, 3, width // heads, *value.shape[1:]).transpose(0, 1).reshape(value.shape)

    weight = weights.take(f"{name}.weight", 3 * width, width, change=lambda value: apart(value).T)
    bias = weights.take(f"{name}.bias", 3 * width, change=apart) if _biased(config) else None
    return Linear(weight, bias)
