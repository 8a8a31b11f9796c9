"""AutoencoderKL as the two ends of latent diffusion: its latents as the process sees them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from export.diffusers.any_rows import any_rows
from export.diffusers.folder import Saved
from export.diffusers.refusals import not_supported
from export.diffusers.weights import load

KNOWN = "AutoencoderKL"


class Encoder(nn.Module):
    """x [rows, C, H, W] -> latents: the posterior's mean, shifted and scaled."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self._shift, self._scale = shift_and_scale(network.config)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        with any_rows():
            mean: Tensor = self.network.encode(x, return_dict=False)[0].mean
        return (mean - self._shift) * self._scale


class Decoder(nn.Module):
    """Latents as the process sees them -> x [rows, C, H, W]."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self._shift, self._scale = shift_and_scale(network.config)

    def forward(self, latent: Tensor) -> Tensor:
        """See the class."""
        with any_rows():
            x: Tensor = self.network.decode(latent / self._scale + self._shift, return_dict=False)[0]
        return x


def shift_and_scale(config: Any) -> tuple[float, float]:
    """The process sees (latent - shift) scale."""
    return float(config.get("shift_factor") or 0.0), float(config.get("scaling_factor") or 1.0)


def load_autoencoder(saved: Saved, latents: tuple[int, int, int], variant: str | None) -> Any:
    """The network of a folder, whose latents have the shape ``latents``.

    Raises PackageError: UNSUPPORTED_NETWORK (another class, other latents), those of ``load``.
    """
    if saved.kind != KNOWN:
        raise not_supported(
            saved.config, f"the autoencoder {saved.kind} is not supported", f"Supported: {KNOWN}"
        )
    network: Any = load(saved, variant)
    if network.config.get("latents_mean") is not None or network.config.get("latents_std") is not None:
        raise not_supported(
            saved.config,
            "latents_mean and latents_std are not supported",
            "Supported: scaling_factor, shift_factor",
        )
    if network.config["latent_channels"] != latents[0]:
        raise not_supported(
            saved.config,
            f"its latents have {network.config['latent_channels']} channels, not the denoiser's {latents[0]}",
            "Give the autoencoder that the denoiser was trained with",
        )
    return network


def pixels(network: Any, latents: tuple[int, int, int]) -> tuple[int, int, int]:
    """The shape of the images whose latents have the shape ``latents``."""
    factor = 2 ** (len(network.config["block_out_channels"]) - 1)
    return int(network.config["out_channels"]), latents[1] * factor, latents[2] * factor
