"""Llama (Touvron et al. 2023) and its kin: Mistral, Qwen2, Qwen3, Gemma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.graph.decoder import Decoder, DecoderBlock, Linear, Mlp, Norm
from export.transformers.families.common import activation, head, only, rms_norm
from export.transformers.refusal import unsupported
from export.transformers.rotary import rotary
from export.transformers.weights import Weights, joined

IGNORED = r"rotary_emb\.inv_freq$"


@dataclass(frozen=True)
class Kin:
    """How a relative differs. ``qkv_bias`` None: as config.attention_bias says, which then holds for both."""

    module: str  # of transformers.models
    rotary: str  # the class there
    qkv_bias: bool | None = None
    head_norms: bool = False
    norm_offset: float = 0.0
    scaled_embedding: bool = False


LLAMA = Kin("llama.modeling_llama", "LlamaRotaryEmbedding")
MISTRAL = Kin("mistral.modeling_mistral", "MistralRotaryEmbedding", qkv_bias=False)
QWEN2 = Kin("qwen2.modeling_qwen2", "Qwen2RotaryEmbedding", qkv_bias=True)
QWEN3 = Kin("qwen3.modeling_qwen3", "Qwen3RotaryEmbedding", head_norms=True)
GEMMA = Kin("gemma.modeling_gemma", "GemmaRotaryEmbedding", norm_offset=1.0, scaled_embedding=True)


@dataclass(frozen=True)
class Describe:
    """The description of one kin."""

    kin: Kin

    def __call__(self, config: Any, weights: Weights, max_length: int) -> Decoder:
        """Its decoder."""
        _check(config, self.kin, max_length)
        width = config.hidden_size
        return Decoder(
            token=weights.take("model.embed_tokens.weight", config.vocab_size, width),
            blocks=[_block(config, weights, self.kin, i) for i in range(config.num_hidden_layers)],
            norm_out=_norm(config, weights, self.kin, "model.norm"),
            head=head(config, weights, "lm_head", width),
            heads=config.num_attention_heads,
            kv_heads=_kv_heads(config),
            head_dim=_head_dim(config),
            max_length=max_length,
            rotary=rotary(config, self.kin.module, self.kin.rotary, max_length),
            embedding_scale=width**0.5 if self.kin.scaled_embedding else None,
        )


def _check(config: Any, kin: Kin, max_length: int) -> None:
    where = f"{config.model_type}"
    only(config, where, attn_logit_softcapping=None, final_logit_softcapping=None, partial_rotary_factor=1.0)
    if getattr(config, "use_bidirectional_attention", None):
        raise unsupported(where, "use_bidirectional_attention", "Only causal attention can be written")
    window = getattr(config, "sliding_window", None)
    # Qwen keeps a window in its configuration that use_sliding_window switches off.
    if window and getattr(config, "use_sliding_window", True) and window < max_length:
        raise unsupported(
            where,
            f"config.json: sliding_window is {window}, but rows have up to {max_length} tokens",
            f"Give --max-length {window} or less, within which the window hides nothing",
        )
    if _head_dim(config) % 16:
        raise unsupported(where, f"heads of {_head_dim(config)} channels", "They must be a multiple of 16")


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _kv_heads(config: Any) -> int:
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def _norm(config: Any, weights: Weights, kin: Kin, name: str) -> Norm:
    return rms_norm(weights, name, config.hidden_size, config.rms_norm_eps, kin.norm_offset)


def _block(config: Any, weights: Weights, kin: Kin, index: int) -> DecoderBlock:
    name, width, size = f"model.layers.{index}", config.hidden_size, _head_dim(config)
    biased = bool(getattr(config, "attention_bias", False))
    qkv_biased = biased if kin.qkv_bias is None else kin.qkv_bias
    attention = f"{name}.self_attn"
    heads, kv_heads = config.num_attention_heads * size, _kv_heads(config) * size
    parts = {"q_proj": heads, "k_proj": kv_heads, "v_proj": kv_heads}
    norms = [
        rms_norm(weights, f"{attention}.{part}", size, config.rms_norm_eps) if kin.head_norms else None
        for part in ("q_norm", "k_norm")
    ]
    return DecoderBlock(
        norm_attention=_norm(config, weights, kin, f"{name}.input_layernorm"),
        qkv=joined([weights.linear(f"{attention}.{p}", width, n, bias=qkv_biased) for p, n in parts.items()]),
        project=weights.linear(f"{attention}.o_proj", heads, width, bias=biased and kin.qkv_bias is None),
        norm_mlp=_norm(config, weights, kin, f"{name}.post_attention_layernorm"),
        mlp=_mlp(config, weights, f"{name}.mlp"),
        query_norm=norms[0],
        key_norm=norms[1],
    )


def _mlp(config: Any, weights: Weights, name: str) -> Mlp:
    width, inner = config.hidden_size, config.intermediate_size
    biased = bool(getattr(config, "mlp_bias", False))
    act, approximate = activation(config.hidden_act, config.model_type)

    def linear(part: str, inputs: int, outputs: int) -> Linear:
        return weights.linear(f"{name}.{part}", inputs, outputs, bias=biased)

    return Mlp(
        up=linear("up_proj", width, inner),
        down=linear("down_proj", inner, width),
        gate=linear("gate_proj", width, inner),
        approximate=approximate,
        activation=act,
    )
