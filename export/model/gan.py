"""A generative adversarial network."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from export.adapt.steps import Logit, NormalToUniform, Reshape, Step
from export.adapt.wiring import Wire
from export.model.base import Model, Part, latent_input, wired
from export.model.network import AnyNetwork, bound
from export.model.record import specification
from export.model.spaces import Image, Range, Vector


@specification
class Gan(Model):
    """``generator``: latent, conditions -> x; ``discriminator``: x, conditions -> one number per row;
    ``encoder``: x, conditions -> latent, where an inversion starts. The last two may be absent.

    ``latent_shape``: of a row, for example (128,) or (100, 1, 1). The latents of a package are N(0, I);
    ``latent_uniform`` (low, high) says that the generator was trained on uniform ones, and turns normal into
    uniform exactly. ``scores``: what the discriminator gives, larger for more real: ``logits`` (also a
    critic's score), or ``probabilities`` (a sigmoid at the end).
    """

    generator: AnyNetwork
    discriminator: AnyNetwork | None = None
    encoder: AnyNetwork | None = None
    latent_shape: tuple[int, ...] = field(kw_only=True)
    latent_uniform: Range | None = field(default=None, kw_only=True)
    scores: Literal["logits", "probabilities"] | None = field(default=None, kw_only=True)
    data: Annotated[Image | Vector, Field(discriminator="kind")] = field(kw_only=True)

    family = "gan"

    @model_validator(mode="after")
    def _stated(self) -> Self:
        if (self.discriminator is None) != (self.scores is None):
            raise ValueError(
                'scores: add scores="logits", or scores="probabilities" if the discriminator ends in a '
                "sigmoid"
                if self.scores is None
                else "scores: there is no discriminator"
            )
        if self.encoder is not None and self.latent_uniform is not None:
            raise ValueError("encoder: one that gives uniform latents cannot be used; export without it")
        return self

    def section(self) -> dict[str, Any]:
        """See ``export.package.sections.Gan``."""
        return {"latent_shape": list(self.latent_shape)}

    def parts(self) -> dict[str, Part]:
        """The generator, then what else there is."""
        generator, given = bound(self.generator), self.condition_inputs()
        inputs = latent_input(self.latent_shape, *self._uniform()), *given
        x = self.data_output(generator, "x")
        parts = {"generator": Part(generator, wired(generator, inputs, (x,)), "latent", looped=True)}
        if self.discriminator is not None:
            judge = bound(self.discriminator)
            score = Wire("logit", "float32", (), (Reshape(()), *self._score()))
            parts["discriminator"] = Part(judge, wired(judge, (self.data_input(judge), *given), (score,)))
        if self.encoder is not None:
            encoder = bound(self.encoder)
            latent = Wire("latent", "float32", self.latent_shape, seen=self.latent_shape)
            parts["encoder"] = Part(encoder, wired(encoder, (self.data_input(encoder), *given), (latent,)))
        return parts

    def _uniform(self) -> tuple[Step, ...]:
        return () if self.latent_uniform is None else (NormalToUniform(*self.latent_uniform),)

    def _score(self) -> tuple[Step, ...]:
        return (Logit(),) if self.scores == "probabilities" else ()
