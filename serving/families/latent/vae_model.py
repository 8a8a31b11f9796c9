"""A VAE inside one request: posterior, decoder, and proposals where only some entries are given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from kernels.philox import STREAM_LATENT, STREAM_RESAMPLE
from serving.families.latent.evaluator import Steps
from serving.families.latent.gaussian import DiagonalGaussian, prior_log_prob
from serving.families.latent.lanes import Lanes
from serving.families.latent.observation import ObservationModel
from serving.families.latent.posterior_target import Decoder
from serving.families.latent.run import Run
from serving.families.request import Request

FILL_SWEEPS = 4
DEFENSIVE_SHARE = 0.25  # of importance draws that come from the prior where entries are missing


@dataclass(frozen=True)
class VaeModel:
    """Components ``encoder`` (x -> mean, log_variance) and ``decoder`` of a package, for one run."""

    run: Run
    observation: ObservationModel

    @cached_property
    def latent_shape(self) -> tuple[int, ...]:
        """Of one row."""
        assert self.run.spec.vae is not None
        return self.run.spec.vae.latent_shape

    @cached_property
    def dims(self) -> int:
        """Latent dimensions."""
        return math.prod(self.latent_shape)

    @cached_property
    def decoder(self) -> Decoder:
        """The decoder with its observation model."""
        return Decoder(self.run.networks, "decoder", self.latent_shape, self.observation)

    def posterior(self, x: torch.Tensor, lanes: Lanes) -> Steps[DiagonalGaussian]:
        """q(z | x) of model coordinates [lanes, *shape], per lane."""
        outputs = yield from self.run.networks.outputs("encoder", {"x": x}, lanes.owner)
        return DiagonalGaussian.from_log_variance(outputs["mean"], outputs["log_variance"])

    def decoded_mean(self, z: torch.Tensor, lanes: Lanes) -> Steps[torch.Tensor]:
        """E[x | z] in model coordinates, float32."""
        outputs = yield from self.decoder.outputs(z, lanes)
        return self.observation.mean(outputs)

    def filled(self, x: torch.Tensor, observed: torch.Tensor | None) -> Steps[torch.Tensor]:
        """Missing entries [rows, *shape] by a few reconstructions, from the mean image of z = 0.

        Any function of the given entries is a valid proposal's input; this one looks like data, which
        is what the encoder was trained on.
        """
        if observed is None:
            return x
        lanes = self.run.lanes()
        z = torch.zeros((self.run.rows, self.dims), device=self.run.device)
        for sweep in range(FILL_SWEEPS):
            x = torch.where(observed, x, (yield from self.decoded_mean(z, lanes)))
            if sweep + 1 < FILL_SWEEPS:
                z = (yield from self.posterior(x, lanes)).mean.float()
        return x

    def proposal(self) -> Steps[Proposal]:
        """What importance draws come from, given the request's data and mask."""
        observed = self.run.observed
        x = yield from self.filled(self.run.x(), observed)
        posterior = yield from self.posterior(x, self.run.lanes())
        return Proposal(self, posterior, self.run.x(), observed)


@dataclass(frozen=True)
class Proposal:
    """q(z | x), or where entries are missing its mixture with the prior, which bounds every weight.

    An encoder trained on whole rows is too sure of itself for a partial one; with a share a of prior
    draws no weight exceeds p(x_given | z) / a (Hesterberg 1995).
    """

    model: VaeModel
    posterior: DiagonalGaussian  # per row
    x: torch.Tensor
    observed: torch.Tensor | None

    def draw(self, lanes: Lanes) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents float32 [lanes, d] and ln of their proposal density, float64 [lanes]."""
        noise = lanes.normal(STREAM_LATENT, 0, self.model.dims)
        posterior = self.posterior.of(lanes.owner)
        z = posterior.transport(noise)
        if self.observed is None:
            return z, posterior.log_prob(z)
        from_prior = lanes.uniform(STREAM_RESAMPLE, 0, 1) < DEFENSIVE_SHARE
        z = torch.where(from_prior, noise, z)
        return z, torch.logaddexp(
            posterior.log_prob(z) + math.log1p(-DEFENSIVE_SHARE),
            prior_log_prob(z) + math.log(DEFENSIVE_SHARE),
        )

    def log_weights(self, lanes: Lanes) -> Steps[torch.Tensor]:
        """ln p(x | z) p(z) / q(z) of fresh draws, float64 [lanes]."""
        z, log_q = self.draw(lanes)
        likelihood = yield from self.model.decoder.log_likelihood(z, lanes, self.x, self.observed)
        return likelihood + prior_log_prob(z) - log_q


def proposal_rows(request: Request) -> dict[str, int]:
    """What ``VaeModel.proposal`` costs a row."""
    if request.observed is None:
        return {"encoder": 1, "decoder": 0}
    return {"encoder": FILL_SWEEPS, "decoder": FILL_SWEEPS}
