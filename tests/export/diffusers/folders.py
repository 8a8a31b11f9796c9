"""Small networks with random weights, saved by diffusers itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

CLASSES = 5  # embeddings of the class-conditional U-Nets, the null among them
TOKENS, BEGIN, END = 24, "<|startoftext|>", "<|endoftext|>"  # of texts
IMAGENET = 1000  # classes of transformers: DiTPipeline's code has their null, 1000


def diffusers() -> Any:
    """The library; tests that need it are skipped where it is absent."""
    return pytest.importorskip("diffusers")


def unet(classes: int = 0, **settings: Any) -> nn.Module:
    """UNet2DModel of three channels and 8 x 8 pixels."""
    torch.manual_seed(3)
    config: dict[str, Any] = {
        "sample_size": 8, "in_channels": 3, "out_channels": 3, "layers_per_block": 1, "norm_num_groups": 4,
        "block_out_channels": (8, 16), "attention_head_dim": 8,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "num_class_embeds": classes or None,
    }  # fmt: skip
    network: nn.Module = diffusers().UNet2DModel(**(config | settings)).eval()
    return network


def dit(**settings: Any) -> nn.Module:
    """DiTTransformer2DModel over latents of four channels and 4 x 4 places; the variance is learned."""
    torch.manual_seed(4)
    config: dict[str, Any] = {
        "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8,
        "num_layers": 2, "sample_size": 4, "patch_size": 2, "num_embeds_ada_norm": IMAGENET,
        "attention_bias": True,
    }  # fmt: skip
    network: nn.Module = diffusers().DiTTransformer2DModel(**(config | settings)).eval()
    torch.nn.init.normal_(network.proj_out_2.weight, std=0.3)  # type: ignore[union-attr, arg-type]
    return network


def scheduler(kind: str = "DDPMScheduler", **settings: Any) -> Any:
    """A scheduler with its defaults."""
    return getattr(diffusers(), kind)(**settings)


def ddpm(to: Path, classes: int = 0, kind: str = "DDPMPipeline", **settings: Any) -> Path:
    """A pipeline over pixels."""
    made = getattr(diffusers(), kind)(unet(classes), scheduler(**settings))
    made.save_pretrained(to)
    return to


def bare(to: Path, network: nn.Module, **settings: Any) -> tuple[Path, Path]:
    """A network alone, and its scheduler: two folders in ``to``."""
    network.save_pretrained(to / "network")  # type: ignore[operator]
    scheduler(**settings).save_pretrained(to / "schedule")
    return to / "network", to / "schedule"


def autoencoder(**settings: Any) -> nn.Module:
    """AutoencoderKL between 8 x 8 pixels and latents of four channels and 4 x 4 places."""
    torch.manual_seed(5)
    config: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8,
        "scaling_factor": 0.5, "shift_factor": 0.1,
    }  # fmt: skip
    network: nn.Module = diffusers().AutoencoderKL(**(config | settings)).eval()
    return network


def dit_pipeline(to: Path, **settings: Any) -> Path:
    """A pipeline over latents, with names of the classes."""
    made = diffusers().DiTPipeline(dit(), autoencoder(), scheduler("DDIMScheduler", **settings))
    made.save_pretrained(to)
    index = json.loads((to / "model_index.json").read_text())
    index["id2label"] = {str(place): f"class {place}" for place in range(IMAGENET)}
    (to / "model_index.json").write_text(json.dumps(index))  # as published ones have them
    return to


def conditioned(classes: int = 0, **settings: Any) -> nn.Module:
    """UNet2DConditionModel over latents of 4 channels and 4 x 4 places; it attends to states of width 16."""
    torch.manual_seed(6)
    config: dict[str, Any] = {
        "sample_size": 4, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "norm_num_groups": 4,
        "block_out_channels": (8, 16), "attention_head_dim": 4, "cross_attention_dim": 16,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "num_class_embeds": classes or None,
    }  # fmt: skip
    network: nn.Module = diffusers().UNet2DConditionModel(**(config | settings)).eval()
    return network


def tokenizer() -> Any:
    """CLIP's kind of tokenizer without merges: a token is a character, of a word's end or not."""
    library = pytest.importorskip("transformers")
    characters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
    pieces = [*characters, *(f"{character}</w>" for character in characters), BEGIN, END]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    return library.CLIPTokenizer(
        vocab=vocabulary, merges=[], bos_token=BEGIN, eos_token=END, pad_token=END, unk_token=END,
        model_max_length=TOKENS,
    )  # fmt: skip


def text_encoder() -> nn.Module:
    """CLIPTextModel of width 16."""
    library = pytest.importorskip("transformers")
    torch.manual_seed(7)
    size = len(tokenizer())
    config = library.CLIPTextConfig(
        vocab_size=size, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=TOKENS, bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 1,
    )  # fmt: skip
    network: nn.Module = library.CLIPTextModel(config).eval()
    return network


def text_pipeline(to: Path, **settings: Any) -> Path:
    """A pipeline over latents that reads texts."""
    made = diffusers().StableDiffusionPipeline(
        autoencoder(shift_factor=None), text_encoder(), tokenizer(), conditioned(),
        scheduler("DDIMScheduler", **settings), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    made.save_pretrained(to)
    return to
