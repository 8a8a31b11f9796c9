"""The components of the reference models: which module, which example inputs, which names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

Inputs = dict[str, Tensor]
Example = Callable[[int, torch.Generator], Inputs]


@dataclass(frozen=True)
class Part:
    """One component of a model.

    ``module``: where it lies in the network (a dotted name, empty: the network itself). ``example``: seeded
    inputs of so many rows, in call order. ``kind``: a traced graph, the decoder with a cache that belongs
    to this scorer, or a vector-Jacobian product with respect to the input ``wrt``.
    """

    outputs: tuple[str, ...]
    example: Example
    module: str = ""
    kind: Literal["onnx", "torchscript", "cached", "vjp"] = "onnx"
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    wrt: str = ""

    def of(self, network: nn.Module) -> nn.Module:
        """The module of this part."""
        return network.get_submodule(self.module)

    @property
    def suffix(self) -> str:
        """Of its file."""
        return "pt" if self.kind == "torchscript" else "onnx"


def _normal(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator)


def _pixels(rows: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 17, (rows, 1, 8, 8), generator=generator) / 8.0 - 1.0


def _labels(rows: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 11, (rows,), generator=generator)


def step_inputs(rows: int, generator: torch.Generator) -> Inputs:
    """Noisy x, training steps in 0..999, labels."""
    x = _normal(rows, 1, 8, 8, generator=generator)
    steps = torch.randint(0, 1000, (rows,), generator=generator).float()
    return {"x": x, "t": steps, "label": _labels(rows, generator)}


def fraction_inputs(rows: int, generator: torch.Generator) -> Inputs:
    """Noisy x, times in [0, 1), labels."""
    x = _normal(rows, 1, 8, 8, generator=generator)
    return {"x": x, "t": torch.rand(rows, generator=generator), "label": _labels(rows, generator)}


def sigma_inputs(rows: int, generator: torch.Generator) -> Inputs:
    """Sigmas between 0.01 and 10, and x of that spread."""
    sigma = 10.0 ** (3.0 * torch.rand(rows, generator=generator) - 2.0)
    x = _pixels(rows, generator) + sigma[:, None, None, None] * _normal(rows, 1, 8, 8, generator=generator)
    return {"x": x, "t": sigma}


def image_inputs(rows: int, generator: torch.Generator) -> Inputs:
    """Images of random levels."""
    return {"x": _pixels(rows, generator)}


def latent_inputs(size: int) -> Example:
    """Standard normal vectors."""
    return lambda rows, generator: {"latent": _normal(rows, size, generator=generator)}


def token_inputs(vocabulary: int, length: int) -> Example:
    """Random symbols."""
    return lambda rows, generator: {
        "tokens": torch.randint(0, vocabulary, (rows, length), generator=generator)
    }


def denoiser(example: Example) -> dict[str, Part]:
    """A denoiser and its product."""
    return {
        "denoiser": Part(("prediction",), example),
        "denoiser_vjp": Part(("prediction", "x_vjp"), example, kind="vjp", wrt="x"),
    }


def transformer(inputs: int, length: int) -> dict[str, Part]:
    """A scorer over sequences of any length, and a decoder with a cache."""
    example = token_inputs(inputs, length)
    axes = {"tokens": {0: "rows", 1: "length"}}
    return {
        "scorer": Part(("logits",), example, dynamic=axes),
        "decoder": Part(("logits",), example, kind="cached"),
    }


PIXELCNN = {"scorer": Part(("logits",), token_inputs(17, 64))}
AUTOENCODER = {
    "encoder": Part(("latent",), image_inputs, "encoder", "torchscript"),
    "decoder": Part(("x",), latent_inputs(12), "decoder", "torchscript"),
}
VAE = {
    "encoder": Part(("mean", "log_variance"), image_inputs, "encoder"),
    "decoder": Part(("mean", "log_scale"), latent_inputs(16), "decoder"),
    "decoder_vjp": Part(
        ("mean", "log_scale", "latent_vjp"), latent_inputs(16), "decoder", "vjp", wrt="latent"
    ),
}
GAN = {
    "generator": Part(("x",), latent_inputs(32), "generator"),
    "generator_vjp": Part(("x", "latent_vjp"), latent_inputs(32), "generator", "vjp", wrt="latent"),
    "discriminator": Part(("logit",), image_inputs, "discriminator"),
    "encoder": Part(("latent",), image_inputs, "encoder"),
}
