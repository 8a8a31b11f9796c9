"""One request on its way through a latent family: its data, its lanes, its networks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from export.package.schema import ModelSpec
from serving.families import units
from serving.families.latent.evaluator import Evaluator
from serving.families.latent.lanes import Lanes
from serving.families.request import Array, Request, Value


class Run:
    """What every program of these families needs."""

    def __init__(self, spec: ModelSpec, request: Request, device: torch.device) -> None:
        self.spec = spec
        self.request = request
        self.device = device
        self.networks = Evaluator(spec, request, device)
        self.rows = request.rows

    @property
    def parameters(self) -> dict[str, Value]:
        """The resolved parameters, as the reply echoes them."""
        return dict(self.request.parameters)

    def integer(self, name: str) -> int:
        """A resolved integer parameter."""
        return int(self.request.parameters[name])  # type: ignore[arg-type]

    def flag(self, name: str) -> bool:
        """A boolean parameter, false where it is absent."""
        return bool(self.request.parameters.get(name, False))

    def number(self, name: str) -> float | None:
        """A float parameter, None where it is absent."""
        value = self.request.parameters.get(name)
        return None if value is None else float(value)  # type: ignore[arg-type]

    @property
    def data(self) -> Array:
        """[rows, *shape] in the data space."""
        assert self.request.data is not None
        return self.request.data

    @property
    def observed(self) -> torch.Tensor | None:
        """[rows, *shape] bool, None where everything is given."""
        if self.request.observed is None:
            return None
        return torch.from_numpy(np.ascontiguousarray(self.request.observed)).to(self.device)

    @property
    def scored_dims(self) -> NDArray[np.int64]:
        """Given entries of each row."""
        if self.request.observed is None:
            return np.full(self.rows, self.spec.data.elements, np.int64)
        given: NDArray[np.int64] = self.request.observed.reshape(self.rows, -1).sum(axis=1, dtype=np.int64)
        return given

    def x(self) -> torch.Tensor:
        """The data in model coordinates, float32; entries that are not given are never read: 0 there."""
        given = self.request.observed
        data = self.data if given is None else np.where(given, self.data, np.zeros_like(self.data))
        x = units.to_model(self.spec.data, data, self.device)
        observed = self.observed
        return x if observed is None else torch.where(observed, x, torch.zeros_like(x))

    def lanes(self, count: int = 1) -> Lanes:
        """``count`` particles of every row."""
        return Lanes.of(self.request, count, self.device)

    def to_data(self, x: torch.Tensor) -> Array:
        """Model coordinates to the data space."""
        return units.to_data(self.spec.data, x)

    def completed(self, x: torch.Tensor, completions: int) -> Array:
        """Draws [rows * completions, *shape] as a reply: given entries are the caller's, bit for bit."""
        assert self.request.observed is not None
        shape = (self.rows, completions, *self.spec.data.shape)
        drawn = self.to_data(x).reshape(shape)
        given = self.request.observed[:, None]
        return np.where(given, self.data[:, None].astype(drawn.dtype, copy=False), drawn)
