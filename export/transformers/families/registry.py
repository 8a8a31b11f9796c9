"""Which function describes which architecture (``architectures`` in config.json)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from export.graph.decoder import Decoder
from export.transformers.families import gpt2, gpt_neox, imagegpt, llama, opt, phi
from export.transformers.weights import Weights


@dataclass(frozen=True)
class Architecture:
    """``prefix``: may be missing before weights' names; ``ignored``: buffers among them (a pattern)."""

    describe: Callable[[Any, Weights, int], Decoder]
    prefix: str
    ignored: str
    positions: str = "max_position_embeddings"  # the setting that bounds a row's length
    pixels: bool = False  # rows are pictures, symbols entries of a palette


ARCHITECTURES: dict[str, Architecture] = {
    "GPT2LMHeadModel": Architecture(gpt2.describe, "transformer.", gpt2.IGNORED, "n_positions"),
    "GPTNeoXForCausalLM": Architecture(gpt_neox.describe, "gpt_neox.", gpt_neox.IGNORED),
    "GemmaForCausalLM": Architecture(llama.Describe(llama.GEMMA), "model.", llama.IGNORED),
    "ImageGPTForCausalImageModeling": Architecture(
        imagegpt.describe, "transformer.", imagegpt.IGNORED, "n_positions", pixels=True
    ),
    "LlamaForCausalLM": Architecture(llama.Describe(llama.LLAMA), "model.", llama.IGNORED),
    "MistralForCausalLM": Architecture(llama.Describe(llama.MISTRAL), "model.", llama.IGNORED),
    "OPTForCausalLM": Architecture(opt.describe, "model.", opt.IGNORED),
    "PhiForCausalLM": Architecture(phi.describe, "model.", phi.IGNORED),
    "Qwen2ForCausalLM": Architecture(llama.Describe(llama.QWEN2), "model.", llama.IGNORED),
    "Qwen3ForCausalLM": Architecture(llama.Describe(llama.QWEN3), "model.", llama.IGNORED),
}
