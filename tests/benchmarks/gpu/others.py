"""The same networks in diffusers and transformers, where these are installed; None where they are not."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from tests.benchmarks.networks.decoder import Decoder
from tests.benchmarks.networks.unet import CIFAR10, UNet

Call = Callable[[], torch.Tensor]


def diffusers_unet(network: UNet) -> Any:
    """UNet2DModel with our weights."""
    twin: Any = import_module("diffusers").UNet2DModel(
        sample_size=32,
        block_out_channels=CIFAR10,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=None,
        norm_eps=1e-6,
    )
    twin.load_state_dict(network.state_dict())
    return twin.eval()


def transformers_decoder(network: Decoder) -> Any:
    """GPT2LMHeadModel with our weights."""
    library = import_module("transformers")
    twin: Any = library.GPT2LMHeadModel(library.GPT2Config())
    weights = {f"transformer.{name}": value for name, value in network.state_dict().items()}
    twin.load_state_dict({**weights, "lm_head.weight": network.wte.weight}, strict=False)
    return twin.eval()


def pipeline(network: UNet, steps: int, x: torch.Tensor) -> Call | None:
    """DDIM of diffusers; None without it, or for a network of another size."""
    if find_spec("diffusers") is None or network.conv_in.out_channels != CIFAR10[0]:
        return None
    scheduler: Any = import_module("diffusers").DDIMScheduler()
    twin = diffusers_unet(network).to(x.device)
    scheduler.set_timesteps(steps)

    @torch.no_grad()
    def call() -> torch.Tensor:
        state = x
        for t in scheduler.timesteps:
            state = scheduler.step(twin(state, t).sample, t, state).prev_sample
        return state

    return call


def generate(network: Decoder, tokens: torch.Tensor, new: int) -> Call | None:
    """``generate`` of transformers with top-k 50; None without it, or for a network of another size."""
    if find_spec("transformers") is None or network.size.width != 768:
        return None
    twin = transformers_decoder(network).to(tokens.device, network.wte.weight.dtype)

    def call() -> torch.Tensor:
        options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": True, "top_k": 50}
        mask = torch.ones_like(tokens)
        drawn: torch.Tensor = twin.generate(tokens, attention_mask=mask, pad_token_id=0, **options)
        return drawn[:, -1]

    return call
