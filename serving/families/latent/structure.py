"""Encode, Decode, Reconstruct and Interpolate, for any family that can embed data and decode latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from serving.families import units
from serving.families.capability import Parameter
from serving.families.latent.evaluator import Steps
from serving.families.latent.lanes import Lanes
from serving.families.latent.paths import PATHS
from serving.families.latent.run import Run
from serving.families.result import Decoded, Encoded, Interpolated, Reconstructed, Result


class Embedding(Protocol):
    """Data to flat latents, and back."""

    latent_shape: tuple[int, ...]

    def embed(self, run: Run, x: torch.Tensor, lanes: Lanes) -> Steps[torch.Tensor]:
        """Model coordinates [lanes, *shape] to latents float32 [lanes, d], by the request's method."""

    def decode(self, run: Run, z: torch.Tensor, lanes: Lanes) -> Steps[torch.Tensor]:
        """Latents [lanes, d] to model coordinates float32 [lanes, *shape]."""


def interpolation_parameters(default: str) -> tuple[Parameter, ...]:
    """``points`` and ``path``."""
    return (
        Parameter("points", "int", 8, 2, 1024),
        Parameter("path", "string", default, choices=tuple(sorted(PATHS))),
    )


@dataclass(frozen=True)
class Structure:
    """The four programs over an embedding."""

    embedding: Embedding

    def encode(self, run: Run) -> Steps[Result]:
        """Latents, and how far their decoding is from the data where asked for."""
        lanes = run.lanes()
        z = yield from self.embedding.embed(run, run.x(), lanes)
        error = None
        if run.flag("round_trip"):
            x = yield from self.embedding.decode(run, z, lanes)
            error = units.rms_difference(run.to_data(x), run.data)
        latents = z.reshape(run.rows, *self.embedding.latent_shape).cpu().numpy()
        return Encoded(latents, error, run.parameters)

    def decode(self, run: Run) -> Steps[Result]:
        """Data of given latents."""
        latents = run.request.latents
        assert latents is not None
        z = torch.from_numpy(latents.reshape(run.rows, -1).copy()).to(run.device)
        x = yield from self.embedding.decode(run, z, run.lanes())
        return Decoded(run.to_data(x), parameters=run.parameters)

    def reconstruct(self, run: Run) -> Steps[Result]:
        """Decoded encoding, and its distance from the data."""
        lanes = run.lanes()
        z = yield from self.embedding.embed(run, run.x(), lanes)
        data = run.to_data((yield from self.embedding.decode(run, z, lanes)))
        return Reconstructed(data, units.rms_difference(data, run.data), parameters=run.parameters)

    def interpolate(self, run: Run) -> Steps[Result]:
        """Decoded points of a path between the encodings; its ends are the decoded ends."""
        assert run.request.end is not None
        path, points = str(run.request.parameters["path"]), run.integer("points")
        lanes = run.lanes()
        start = yield from self.embedding.embed(run, run.x(), lanes)
        end_x = units.to_model(run.spec.data, run.request.end, run.device)
        end = yield from self.embedding.embed(run, end_x, lanes)
        z = PATHS[path](start, end, points).flatten(0, 1)
        x = yield from self.embedding.decode(run, z, run.lanes(points))
        data = run.to_data(x).reshape(run.rows, points, *run.spec.data.shape)
        return Interpolated(data, path, parameters=run.parameters)
