"""A model of diffusers as ``export.model`` describes one: its scheduler's numbers instead of a schedule."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Any

from torch import nn

from export.adapt.wiring import Wire
from export.diffusers.scheduled import Scheduled
from export.model.base import Model, Part, wired
from export.model.conditions import TextCondition
from export.model.network import Network
from export.model.record import specification
from export.model.spaces import Image
from export.package.schema import TOKENIZER_FILE


@specification
class Denoising(Model):
    """``denoiser``: x, t, conditions -> prediction, under the process that ``scheduled`` states.

    ``learned``: the prediction is followed by as many channels that interpolate the log variance.
    ``steps``: of requests that name none. ``latent_shape``: of x, where the process runs in the latents that
    ``encoder`` and ``decoder`` go to and come from. ``text_encoder``, ``tokenizer`` (the bytes of
    tokenizer.json): of a text condition.
    """

    denoiser: nn.Module
    scheduled: Scheduled
    learned: bool = field(default=False, kw_only=True)
    steps: int | None = field(default=None, kw_only=True)
    latent_shape: tuple[int, int, int] | None = field(default=None, kw_only=True)
    text_encoder: nn.Module | None = field(default=None, kw_only=True)
    tokenizer: bytes | None = field(default=None, kw_only=True)
    encoder: nn.Module | None = field(default=None, kw_only=True)
    decoder: nn.Module | None = field(default=None, kw_only=True)
    data: Image = field(kw_only=True)

    family = "diffusion"

    def section(self) -> dict[str, Any]:
        """See ``export.package.sections.Diffusion``."""
        found = dict(self.scheduled.section)
        if self.scheduled.bound is not None:
            bound = self.scheduled.bound
            found |= {"clip_range": [-bound, bound], "clip_default": True}
        if self.latent_shape is not None:
            found["latent_shape"] = list(self.latent_shape)
        elif self.data.data_range is not None:
            found.setdefault("clip_range", list(self.data.data_range))
        return found | ({} if self.steps is None else {"default_steps": self.steps})

    def parts(self) -> dict[str, Part]:
        """The denoiser, and the encoders and the decoder around it."""
        channels, *rest = shape = self.latent_shape or self.data.shape
        given = (2 * channels if self.learned else channels, *rest)
        inputs = (_wire("x", shape), Wire("t", "float32", ()), *self.condition_inputs())
        denoiser = _part(self.denoiser, inputs, _wire("prediction", given), "x", looped=True)
        return {"denoiser": denoiser, **self._text_parts(), **self._latent_parts()}

    def _text_parts(self) -> dict[str, Part]:
        text = next((c for c in self.conditions if isinstance(c, TextCondition)), None)
        if text is None or self.text_encoder is None:
            return {}
        tokens = Wire("tokens", "int64", text.shape[:1])
        return {"text_encoder": _part(self.text_encoder, (tokens,), _wire("hidden", text.shape))}

    def _latent_parts(self) -> dict[str, Part]:
        if self.encoder is None or self.decoder is None or self.latent_shape is None:
            return {}
        x, latent = _wire("x", self.data.shape), _wire("latent", self.latent_shape)
        return {
            "encoder": _part(self.encoder, (x,), latent),
            "decoder": _part(self.decoder, (latent,), x),
        }

    def files(self) -> dict[str, Path | bytes]:
        """The tokenizer."""
        return {} if self.tokenizer is None else {TOKENIZER_FILE: self.tokenizer}


def _wire(name: str, shape: tuple[int, ...]) -> Wire:
    return Wire(name, "float32", shape, seen=shape)


def _part(
    module: nn.Module,
    inputs: tuple[Wire, ...],
    output: Wire,
    product: str | None = None,
    looped: bool = False,
) -> Part:
    network = Network(module)
    return Part(network, wired(network, inputs, (output,)), product, looped)
