"""A variational autoencoder."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from export.adapt.steps import Log, Scale, Step
from export.adapt.steps import Part as Slice
from export.adapt.wiring import Wire
from export.model.base import Model, Part, latent_input, wired
from export.model.network import AnyNetwork, Graph, Network, bound
from export.model.observations import ObservationModel
from export.model.record import specification
from export.model.spaces import Image, Vector

Posterior = Literal["mean_logvar", "mean_logstd", "mean_std", "mean_variance"]

TO_LOG_VARIANCE: dict[str, tuple[Step, ...]] = {
    "mean_logvar": (),
    "mean_logstd": (Scale((2.0,)),),
    "mean_std": (Log(), Scale((2.0,))),
    "mean_variance": (Log(),),
}


@specification
class Vae(Model):
    """``encoder``: x, conditions -> the two parameters of q(z | x); ``decoder``: latent, conditions -> p(x |
    z).

    The prior is N(0, I). ``posterior``: what the encoder gives: ``mean_logvar`` (log of the variance),
    ``mean_logstd`` (log of the standard deviation), ``mean_std``, ``mean_variance``. ``observation``: the law
    whose parameters the decoder gives. ``latent_shape``: of a row.
    ``packed_posterior``, ``packed_observation``: the network gives one tensor whose axis 1 holds the first
    parameter, then as many entries of the second.
    """

    encoder: AnyNetwork
    decoder: AnyNetwork
    posterior: Posterior = field(kw_only=True)
    observation: ObservationModel = field(kw_only=True)
    latent_shape: tuple[int, ...] = field(kw_only=True)
    packed_posterior: bool = field(default=False, kw_only=True)
    packed_observation: bool = field(default=False, kw_only=True)
    data: Annotated[Image | Vector, Field(discriminator="kind")] = field(kw_only=True)

    family = "vae"

    @model_validator(mode="after")
    def _levels(self) -> Self:
        kind, levels = self.observation.kind, self.data.levels
        if kind == "bernoulli" and levels != 2:
            raise ValueError(
                f"observation: Bernoulli is a law over two levels, but data.levels is {levels}; "
                "a decoder with a sigmoid for gray levels is Gaussian(std=...), or give binarised data"
            )
        if kind in ("discretized_logistic", "categorical") and levels < 2:
            raise ValueError(f"observation: {kind} is a law over levels, but the data are real numbers")
        if self.packed_observation and len(self.observation.values()) != 2:
            raise ValueError("packed_observation: this observation has one parameter")
        return self

    def section(self) -> dict[str, Any]:
        """See ``export.package.sections.Vae``."""
        return {"latent_shape": list(self.latent_shape), "observation": self.observation.section()}

    def parts(self) -> dict[str, Part]:
        """Encoder and decoder."""
        encoder, decoder, given = bound(self.encoder), bound(self.decoder), self.condition_inputs()
        inputs = latent_input(self.latent_shape), *given
        return {
            "encoder": Part(
                encoder, wired(encoder, (self.data_input(encoder), *given), self._posterior_outputs())
            ),
            "decoder": Part(
                decoder, wired(decoder, inputs, self._observation_outputs(decoder)), "latent", looped=True
            ),
        }

    def _posterior_outputs(self) -> tuple[Wire, ...]:
        shape, spread = self.latent_shape, TO_LOG_VARIANCE[self.posterior]
        if not self.packed_posterior:
            mean = Wire("mean", "float32", shape, seen=shape)
            return mean, Wire("log_variance", "float32", shape, spread, seen=shape)
        whole = (2 * shape[0], *shape[1:])
        first, second = (Slice(part, 2, whole[0]) for part in (0, 1))
        mean = Wire("mean", "float32", shape, (first,), 0, whole)
        return mean, Wire("log_variance", "float32", shape, (second, *spread), 0, whole)

    def _observation_outputs(self, decoder: Network | Graph) -> tuple[Wire, ...]:
        values = self.observation.values()
        if self.observation.kind == "categorical":
            shape = (self.data.levels, *self.data.shape)
            return (Wire("logits", "float32", shape, values["logits"], seen=shape),)
        if not self.packed_observation:
            return tuple(self.data_output(decoder, name, *steps) for name, steps in values.items())
        return tuple(
            self._half(decoder, name, place, steps) for place, (name, steps) in enumerate(values.items())
        )

    def _half(self, decoder: Network | Graph, name: str, place: int, steps: tuple[Step, ...]) -> Wire:
        channels, *rest = self.data.shape
        whole = self.shaped_output(decoder, name, (2 * channels, *rest))
        half = Slice(place, 2, 2 * channels)
        return Wire(name, "float32", self.data.shape, (*whole.steps, half, *steps), 0, whole.seen)
