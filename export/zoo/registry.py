"""The nine reference models: network, components, and what their packages say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from export.zoo import parts
from export.zoo.networks.latent import Autoencoder, Gan, Vae
from export.zoo.networks.pixelcnn import PixelCnn
from export.zoo.networks.transformer import DIGITS, TEXT, CausalTransformer, TransformerShape
from export.zoo.networks.unet import NULL_CLASS, EpsilonDenoiser, FlowDenoiser, ScoreDenoiser
from export.zoo.parts import Part
from export.zoo.schedules import cosine_betas, geometric_sigmas

HERE = Path(__file__).parent
LICENSE = "Apache-2.0"


@dataclass(frozen=True)
class Entry:
    """One reference model.

    ``section`` makes the family's part of ``model.yaml``; ``data`` names the data set, for the record.
    """

    name: str
    family: str
    description: str
    network: Callable[[], nn.Module]
    parts: dict[str, Part]
    section: Callable[[], dict[str, Any]]
    space: dict[str, Any]
    conditional: bool = False
    data: str = "scikit-learn digits (UCI optdigits test set), 1,297 training rows"

    @property
    def weights(self) -> Path:
        """The trained weights."""
        return HERE / "weights" / f"{self.name}.safetensors"

    @property
    def graphs(self) -> Path:
        """The folder of exported graphs."""
        return HERE / "graphs" / self.name

    @property
    def calibration(self) -> Path:
        """The calibration that belongs to version 1, where there is one."""
        return HERE / "calibration" / f"{self.name}.json"


LABEL = {
    "name": "label",
    "kind": "class",
    "classes": 10,
    "class_names": [str(digit) for digit in range(10)],
    "null_value": NULL_CLASS,
    "when_absent": "null",
}
IMAGES = {
    "kind": "image",
    "axes": ["channel", "height", "width"],
    "shape": [1, 8, 8],
    "dtype": "uint8",
    "levels": 17,
    "transform": {"kind": "affine", "scale": [0.125], "shift": [-1.0]},
}
PIXEL_SYMBOLS = {**IMAGES, "transform": {"kind": "identity"}}
BYTES = {
    "kind": "tokens",
    "axes": ["position"],
    "shape": [-1],
    "dtype": "int32",
    "levels": 257,
    "max_length": TEXT.max_length,
}


def _cache(shape: TransformerShape) -> dict[str, int]:
    return {
        "layers": shape.layers,
        "kv_heads": shape.heads,
        "head_dim": shape.head_dim,
        "max_length": shape.max_length,
    }


def _digit_symbols() -> dict[str, Any]:
    begin = {"begin_condition": "label", "begin_offset": DIGITS.vocabulary}
    return {"vocabulary": DIGITS.vocabulary, **begin, "cache": _cache(DIGITS)}


def _text_symbols() -> dict[str, Any]:
    ends = {"begin_symbol": 256, "end_symbol": 256, "tokenizer": "bytes"}
    return {"vocabulary": TEXT.vocabulary, **ends, "cache": _cache(TEXT)}


def _pixels_without_begin() -> dict[str, Any]:
    return {"vocabulary": 17, "shifted_input": False}


def _vp() -> dict[str, Any]:
    return {
        "schedule": {"kind": "vp", "betas": cosine_betas().tolist()},
        "prediction": "epsilon",
        "time_input": "step",
        "clip_range": [-1.0, 1.0],
        "clip_default": True,
        "default_sampler": "ddpm",
        "default_steps": 50,
    }


def _ve() -> dict[str, Any]:
    return {
        "schedule": {"kind": "ve", "sigmas": geometric_sigmas().tolist()},
        "prediction": "score",
        "time_input": "sigma",
        "clip_range": [-1.0, 1.0],
        "default_sampler": "ancestral",
        "default_steps": 100,
    }


def _flow() -> dict[str, Any]:
    return {
        "schedule": {"kind": "flow"},
        "prediction": "flow",
        "time_input": "fraction",
        "clip_range": [-1.0, 1.0],
        "default_sampler": "euler",
        "default_steps": 50,
    }


def _vae() -> dict[str, Any]:
    return {"latent_shape": [16], "observation": {"kind": "discretized_logistic"}}


def _latent(size: int) -> dict[str, Any]:
    return {"latent_shape": [size]}


_ENTRIES = (
    Entry(
        "digits-diffusion",
        "diffusion",
        "Handwritten digits, 8x8: DDPM with a small U-Net, class-conditional, guidable",
        EpsilonDenoiser,
        parts.denoiser(parts.step_inputs),
        _vp,
        IMAGES,
        conditional=True,
    ),
    Entry(
        "digits-autoregressive",
        "autoregressive",
        "Handwritten digits, 8x8: causal transformer over the pixels in raster order, class-conditional",
        partial(CausalTransformer, DIGITS),
        parts.transformer(DIGITS.inputs, DIGITS.max_length),
        _digit_symbols,
        PIXEL_SYMBOLS,
        conditional=True,
    ),
    Entry(
        "digits-pixelcnn",
        "autoregressive",
        "Handwritten digits, 8x8: gated PixelCNN",
        PixelCnn,
        parts.PIXELCNN,
        _pixels_without_begin,
        PIXEL_SYMBOLS,
    ),
    Entry(
        "text-autoregressive",
        "autoregressive",
        "English prose about Python: byte-level causal transformer",
        partial(CausalTransformer, TEXT),
        parts.transformer(TEXT.inputs, 40),
        _text_symbols,
        BYTES,
        data="help topics of Python 3.11.7 (PSF-2.0), four topics of five",
    ),
    Entry(
        "digits-autoencoder",
        "autoencoder",
        "Handwritten digits, 8x8: convolutional autoencoder with twelve latent dimensions",
        Autoencoder,
        parts.AUTOENCODER,
        partial(_latent, 12),
        IMAGES,
    ),
    Entry(
        "digits-vae",
        "vae",
        "Handwritten digits, 8x8: variational autoencoder with discretised logistic pixels",
        Vae,
        parts.VAE,
        _vae,
        IMAGES,
    ),
    Entry(
        "digits-gan",
        "gan",
        "Handwritten digits, 8x8: relativistic GAN with gradient penalties, and an encoder",
        Gan,
        parts.GAN,
        partial(_latent, 32),
        IMAGES,
    ),
    Entry(
        "digits-score",
        "diffusion",
        "Handwritten digits, 8x8: variance-exploding score model",
        ScoreDenoiser,
        parts.denoiser(parts.sigma_inputs),
        _ve,
        IMAGES,
    ),
    Entry(
        "digits-flow",
        "diffusion",
        "Handwritten digits, 8x8: flow matching on straight paths, class-conditional",
        FlowDenoiser,
        parts.denoiser(parts.fraction_inputs),
        _flow,
        IMAGES,
        conditional=True,
    ),
)
ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
