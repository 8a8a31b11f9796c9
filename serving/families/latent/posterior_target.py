"""ln p(x | z) of a factorised decoder over the given entries, its gradient, and the annealing target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from serving.families.latent.annealing import Target
from serving.families.latent.evaluator import Evaluator, Steps, row_sum
from serving.families.latent.gaussian import DiagonalGaussian, prior_log_prob
from serving.families.latent.lanes import Lanes
from serving.families.latent.observation import ObservationModel
from serving.families.rows import Tensors

LEAPS = 10  # of a Hamiltonian move


@dataclass(frozen=True)
class Decoder:
    """A decoding component and what its outputs say about x.

    ``renamed``: output -> the observation model's name (a generator's ``x`` is a ``mean``). Where the
    package has ``component + "_vjp"``, its inputs are ``latent`` and one cotangent per output, in the
    order of the outputs; its last output is the product.
    """

    networks: Evaluator
    component: str
    latent_shape: tuple[int, ...]
    observation: ObservationModel
    renamed: tuple[tuple[str, str], ...] = ()

    @property
    def differentiable(self) -> bool:
        """Whether the package brings the vector-Jacobian product."""
        return self.component + "_vjp" in self.networks.spec.components

    def outputs(self, z: torch.Tensor, lanes: Lanes) -> Steps[dict[str, torch.Tensor]]:
        """Parameters of p(x | z) for latents [lanes, d], under the observation model's names."""
        outputs = yield from self.networks.outputs(self.component, self._inputs(z), lanes.owner)
        return self._named(outputs)

    def log_likelihood(
        self, z: torch.Tensor, lanes: Lanes, x: torch.Tensor, observed: torch.Tensor | None
    ) -> Steps[torch.Tensor]:
        """ln p(x | z) summed over given entries, float64 [lanes]; x and ``observed`` are per row."""

        def reduce(outputs: Tensors, part: slice) -> torch.Tensor:
            owner = lanes.owner[part]
            mask = None if observed is None else observed[owner]
            return row_sum(masked(self.observation.log_prob(self._named(outputs), x[owner]), mask))

        return (yield from self.networks.reduced(self.component, self._inputs(z), lanes.owner, reduce))

    def each(
        self, z: torch.Tensor, lanes: Lanes, function: Callable[[dict[str, torch.Tensor], slice], None]
    ) -> Steps[None]:
        """``function(outputs, lanes)`` of every call, in order; nothing is kept."""

        def reduce(outputs: Tensors, part: slice) -> torch.Tensor:
            function(self._named(outputs), part)
            return torch.empty(0)

        yield from self.networks.reduced(self.component, self._inputs(z), lanes.owner, reduce)

    def with_gradient(
        self, z: torch.Tensor, lanes: Lanes, x: torch.Tensor, observed: torch.Tensor | None
    ) -> Steps[tuple[torch.Tensor, torch.Tensor]]:
        """The same, and its gradient with respect to z [lanes, d], float64."""
        raw = yield from self.networks.outputs(self.component, self._inputs(z), lanes.owner)
        mask = None if observed is None else observed[lanes.owner]
        value, cotangents = self._cotangents(raw, x[lanes.owner], mask)
        vjp = self.networks.spec.components[self.component + "_vjp"]
        known = {"latent", *(condition.name for condition in self.networks.spec.conditions)}
        slots = [spec.name for spec in vjp.inputs if spec.name not in known]
        inputs = self._inputs(z) | {slot: cotangents[name] for slot, name in zip(slots, raw, strict=True)}
        product = yield from self.networks.outputs(self.component + "_vjp", inputs, lanes.owner)
        return value, product[vjp.outputs[-1].name].flatten(1).double()

    def _cotangents(
        self, raw: Tensors, x: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        names = dict(self.renamed)
        outputs = self._named(raw)
        value = row_sum(masked(self.observation.log_prob(outputs, x), mask))
        slopes = self.observation.slopes(outputs, x)
        found = {}
        for name, output in raw.items():
            slope = slopes.get(names.get(name, name))
            if slope is None:
                found[name] = torch.zeros_like(output)
                continue
            aligned = mask if mask is None or slope.dim() == mask.dim() else mask.unsqueeze(1)
            found[name] = masked(slope, aligned).sum_to_size(output.shape).float()
        return value, found

    def _inputs(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"latent": z.float().reshape(-1, *self.latent_shape)}

    def _named(self, outputs: Tensors) -> dict[str, torch.Tensor]:
        names = dict(self.renamed)
        return {names.get(name, name): value for name, value in outputs.items()}


def masked(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Zero where an entry is not given, whatever was computed there."""
    return values if mask is None else torch.where(mask, values, torch.zeros_like(values))


class PosteriorTarget(Target):
    """g(u) = ln p(x | z) + ln N(z; 0, I) - ln q0(z) at z = mean + std * u, with q0 per row."""

    def __init__(
        self, decoder: Decoder, base: DiagonalGaussian, x: torch.Tensor, observed: torch.Tensor | None
    ) -> None:
        self.decoder, self.base, self.x, self.observed = decoder, base, x, observed
        self.dims = base.mean.shape[1]
        if decoder.differentiable:
            self.leaps, self.acceptance = LEAPS, 0.65

    def latents(self, u: torch.Tensor, lanes: Lanes) -> torch.Tensor:
        """z of standardised positions, float32 [lanes, d]."""
        return self.base.of(lanes.owner).transport(u)

    def evaluate(self, u: torch.Tensor, lanes: Lanes) -> Steps[tuple[torch.Tensor, torch.Tensor | None]]:
        """One decoder row per lane; with the gradient one row of the product too."""
        base, z = self.base.of(lanes.owner), self.latents(u, lanes)
        outside = prior_log_prob(z) - base.log_prob(z)
        if not self.decoder.differentiable:
            value = yield from self.decoder.log_likelihood(z, lanes, self.x, self.observed)
            return value + outside, None
        value, slope = yield from self.decoder.with_gradient(z, lanes, self.x, self.observed)
        return value + outside, base.std * (slope - z.double()) + (z.double() - base.mean) / base.std
