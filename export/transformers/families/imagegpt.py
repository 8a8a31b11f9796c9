"""ImageGPT (Chen et al. 2020, "Generative Pretraining from Pixels"): pixels as entries of a palette."""

from __future__ import annotations

from typing import Any

from export.graph.decoder import Decoder, Norm
from export.transformers.families.common import only, rms_norm
from export.transformers.families.gpt2 import block
from export.transformers.weights import Weights

IGNORED = r"\.attn\.(bias|masked_bias)$"


def describe(config: Any, weights: Weights, max_length: int) -> Decoder:
    """ImageGPTForCausalImageModeling: one more token goes in (start of sequence) than comes out."""
    only(config, "imagegpt", add_cross_attention=False, tie_word_embeddings=False)
    width = config.n_embd
    return Decoder(
        token=weights.take("transformer.wte.weight", config.vocab_size, width),
        position=weights.take("transformer.wpe.weight", config.n_positions, width),
        blocks=[block(config, weights, index, _norm) for index in range(config.n_layer)],
        norm_out=_norm(config, weights, "transformer.ln_f"),
        head=weights.linear("lm_head", width, config.vocab_size - 1, bias=False),
        heads=config.n_head,
        kv_heads=config.n_head,
        head_dim=width // config.n_head,
        max_length=max_length,
    )


def _norm(config: Any, weights: Weights, name: str) -> Norm:
    """Without a mean: x / rms(x) * weight."""
    return rms_norm(weights, name, config.n_embd, config.layer_norm_epsilon)
