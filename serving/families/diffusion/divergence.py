"""Slope and divergence of the ODE's field along probes: v^T J v from the network alone.

Hutchinson 1990 with Rademacher probes; with the basis vectors as probes the trace is exact. Where the
package ships the vector-Jacobian product, one evaluation gives output and product; otherwise central
differences along the probe need two more.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from serving.families.diffusion.asking import network_inputs, predictions
from serving.families.diffusion.denoiser import Denoiser
from serving.families.diffusion.ode import Field
from serving.families.diffusion.process import Floats
from serving.families.request import Array
from serving.families.rows import Call, Tensors, Yield

VJP = "denoiser_vjp"


@dataclass(frozen=True)
class Probes:
    """``vectors`` float32 [states, probes, elements]; ``exact``: the basis, whose sum is the trace."""

    vectors: torch.Tensor
    exact: bool

    @property
    def count(self) -> int:
        """Probes per state."""
        return self.vectors.shape[1]


@dataclass(frozen=True)
class Divergence:
    """Evaluates the field at node ``k`` for states y float32 [states, elements]."""

    denoiser: Denoiser
    field: Field
    probes: Probes
    conditions: Mapping[str, Array]  # [states, ...]
    widen: float = 1.0  # of the finite-difference step

    @property
    def network_rows(self) -> int:
        """Network rows per state and node."""
        return self.probes.count if self._has_vjp else 1 + 2 * self.probes.count

    @property
    def _has_vjp(self) -> bool:
        return VJP in self.denoiser.spec.components

    def at(self, node: int, y: torch.Tensor) -> Generator[Yield, Tensors, tuple[torch.Tensor, Floats]]:
        """dy/dr [states, elements], and v^T (d f / d y) v by probe, float64 [states, probes]."""
        ask = self._product if self._has_vjp else self._difference
        output, quadratic = yield from ask(node, y)
        own, net = float(self.field.own[node]), float(self.field.net[node])
        square = self.probes.vectors.double().square().sum(dim=2).numpy()
        return own * y + net * output, own * square + net * quadratic

    def _ask(self, node: int, y: torch.Tensor, times: int) -> Generator[Yield, Tensors, torch.Tensor]:
        x = (y * float(self.field.state_scale[node])).reshape(-1, *self.denoiser.shape)
        levels = self.field.levels[np.full(len(x), node)]
        conditions = {n: np.repeat(v, times, axis=0) for n, v in self.conditions.items()}
        output = yield from predictions(self.denoiser, x, levels, conditions)
        return output.flatten(1)

    def _difference(
        self, node: int, y: torch.Tensor
    ) -> Generator[Yield, Tensors, tuple[torch.Tensor, Floats]]:
        h = self.widen * float(self.field.step[node])
        v = self.probes.vectors
        around = torch.cat([y[:, None], y[:, None] + h * v, y[:, None] - h * v], dim=1)
        output = yield from self._ask(node, around.reshape(-1, y.shape[1]), around.shape[1])
        output = output.reshape(around.shape)
        plus, minus = output[:, 1 : 1 + self.probes.count], output[:, 1 + self.probes.count :]
        slope = ((plus.double() - minus.double()) * v.double()).numpy().sum(axis=2) / (2.0 * h)
        return output[:, 0], slope

    def _product(self, node: int, y: torch.Tensor) -> Generator[Yield, Tensors, tuple[torch.Tensor, Floats]]:
        count = self.probes.count
        scale = float(self.field.state_scale[node])
        x = (y * scale).repeat_interleave(count, dim=0).reshape(-1, *self.denoiser.shape)
        levels = self.field.levels[np.full(len(x), node)]
        conditions = {n: np.repeat(v, count, axis=0) for n, v in self.conditions.items()}
        inputs = network_inputs(self.denoiser, x, levels, conditions)
        inputs["cotangent"] = self._cotangent(x)
        answer = yield Call(VJP, inputs)
        output = answer["prediction"].flatten(1).reshape(len(y), count, -1)[:, 0, : y.shape[1]].clone()
        product = answer["x_vjp"].double().reshape(self.probes.vectors.shape) * self.probes.vectors.double()
        inside = scale * float(self.denoiser.process.input_scale(self.field.levels[node : node + 1])[0])
        return output, inside * product.numpy().sum(axis=2)

    def _cotangent(self, x: torch.Tensor) -> torch.Tensor:
        """The probes; zeros for what a learned variance adds to the outputs."""
        vectors = self.probes.vectors.reshape(x.shape)
        return (
            torch.cat([vectors, torch.zeros_like(vectors)], 1) if self.denoiser.learns_variance else vectors
        )
