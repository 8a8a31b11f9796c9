"""Tiny folders as transformers saves them, with random weights that make varied rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

VOCABULARY, LENGTH, BEGIN, END = 96, 80, 1, 2
COLORS = 16
NEEDED = ("transformers", "tokenizers")

_ROTARY: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
}
_GPT2: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_positions": LENGTH,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
}
_WIDE = {**_ROTARY, "hidden_size": 128, "num_attention_heads": 2}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

# name -> (class of the network, class of its configuration, settings)
TINY: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {**_GPT2, "bos_token_id": BEGIN, "eos_token_id": END}),
    "gpt2-scaled": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {**_GPT2, "bos_token_id": BEGIN, "eos_token_id": END, "scale_attn_by_inverse_layer_idx": True}
        | {"activation_function": "relu", "n_inner": 96},
    ),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**_ROTARY, "attention_bias": True, "mlp_bias": True}),
    "llama3": ("LlamaForCausalLM", "LlamaConfig", {**_ROTARY, "rope_parameters": _LLAMA3, "head_dim": 32}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**_ROTARY, "sliding_window": LENGTH}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", {**_ROTARY, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**_ROTARY, "head_dim": 32}),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", {**_ROTARY, "head_dim": 32, "num_key_value_heads": 1}),
    "gpt-neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {**_WIDE, "rotary_pct": 0.25}),
    "phi": ("PhiForCausalLM", "PhiConfig", {**_WIDE, "partial_rotary_factor": 0.5}),
    "opt": ("OPTForCausalLM", "OPTConfig", {**_ROTARY, "ffn_dim": 80, "word_embed_proj_dim": 64}),
    "imagegpt": (
        "ImageGPTForCausalImageModeling",
        "ImageGPTConfig",
        {**_GPT2, "vocab_size": COLORS + 1, "n_positions": 64},
    ),
}


def network(name: str, **settings: object) -> Any:
    """A network of transformers in float32."""
    library = pytest.importorskip("transformers")
    model, config, known = TINY[name]
    torch.manual_seed(0)
    made = getattr(library, model)(getattr(library, config)(**{**known, **settings})).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return made


def folder(name: str, to: Path, **settings: object) -> Path:
    """Saved under ``to/name``."""
    made = network(name, **settings)
    made.save_pretrained(to / name)
    if name == "imagegpt":
        clusters = np.random.default_rng(0).uniform(-1, 1, (COLORS, 3)).tolist()
        (to / name / "preprocessor_config.json").write_text(json.dumps({"clusters": clusters}))
    (to / name / "README.md").write_text("---\nlicense: mit\n---\n")
    return to / name


def byte_level(path: Path) -> None:
    """A byte-level tokenizer.json like GPT-2's: every byte, a few merges, an end symbol that is special."""
    library = pytest.importorskip("tokenizers")
    made = library.Tokenizer(library.models.BPE())
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<|endoftext|>", "<|end|>"],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["the import statement, the import statement\n\n"] * 4, trainer)
    made.save(str(path))


def metaspace(path: Path) -> None:
    """A tokenizer.json like Llama's: pieces carry their space, bytes fill gaps, a begin symbol is added."""
    library = pytest.importorskip("tokenizers")
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "▁a", "▁b", "a", "b", "c", "▁cab", "."]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    made = library.Tokenizer(
        library.models.BPE(
            vocabulary, [("▁", "a"), ("▁", "b")], unk_token="<unk>", byte_fallback=True, fuse_unk=True
        )
    )
    made.normalizer = library.normalizers.Sequence(
        [library.normalizers.Prepend("▁"), library.normalizers.Replace(" ", "▁")]
    )
    made.decoder = library.decoders.Sequence(
        [
            library.decoders.Replace("▁", " "),
            library.decoders.ByteFallback(),
            library.decoders.Fuse(),
            library.decoders.Strip(" ", 1, 0),
        ]
    )
    made.post_processor = library.processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    made.add_special_tokens(["<s>", "</s>"])
    made.save(str(path))
