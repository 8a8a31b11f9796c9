"""An autoencoder: two networks, and no density."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from export.adapt.steps import Scale, Step
from export.adapt.wiring import Wire
from export.model.base import Model, Part, latent_input, wired
from export.model.network import AnyNetwork, bound
from export.model.record import specification
from export.model.spaces import Image, Range, Vector


@specification
class Autoencoder(Model):
    """``encoder``: x, conditions -> latent; ``decoder``: latent, conditions -> x.

    ``latent_shape``: of a row. ``decoder_range``: the values of the darkest and the brightest pixel in what
    the decoder gives, where that differs from what the encoder takes (a sigmoid behind normalised inputs).
    """

    encoder: AnyNetwork
    decoder: AnyNetwork
    latent_shape: tuple[int, ...] = field(kw_only=True)
    decoder_range: Range | None = field(default=None, kw_only=True)
    data: Annotated[Image | Vector, Field(discriminator="kind")] = field(kw_only=True)

    family = "autoencoder"

    @model_validator(mode="after")
    def _range_of_levels(self) -> Self:
        if self.decoder_range is not None and not self.data.levels:
            raise ValueError("decoder_range: only images with levels have a darkest and a brightest pixel")
        return self

    def section(self) -> dict[str, Any]:
        """See ``export.package.sections.Autoencoder``."""
        return {"latent_shape": list(self.latent_shape)}

    def parts(self) -> dict[str, Part]:
        """Encoder and decoder."""
        encoder, decoder, given = bound(self.encoder), bound(self.decoder), self.condition_inputs()
        latent = Wire("latent", "float32", self.latent_shape, seen=self.latent_shape)
        x = self.data_output(decoder, "x", *self._rescaled())
        return {
            "encoder": Part(encoder, wired(encoder, (self.data_input(encoder), *given), (latent,))),
            "decoder": Part(
                decoder, wired(decoder, (latent_input(self.latent_shape), *given), (x,)), "latent"
            ),
        }

    def _rescaled(self) -> tuple[Step, ...]:
        """Steps from the decoder's range to model coordinates."""
        if self.decoder_range is None:
            return ()
        transform = self.data.section()["transform"]
        low, high = self.decoder_range
        width = (high - low) / (self.data.levels - 1)  # of a level
        factors = tuple(scale / width for scale in transform["scale"])
        offsets = tuple(
            shift - factor * low for factor, shift in zip(factors, transform["shift"], strict=True)
        )
        return (Scale(factors, offsets, axes=1 + len(self.data.shape)),)
