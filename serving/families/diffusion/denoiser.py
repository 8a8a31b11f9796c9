"""One package's denoiser: its spaces, its process, its conditions, and how to ask the network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from export.package.schema import ModelSpec
from serving.families import units
from serving.families.diffusion.plan import Choices, Plan
from serving.families.diffusion.process import Process
from serving.families.request import Array, Request
from serving.families.rows import Tensors

COMPONENT = "denoiser"
TABLE = "denoise"


class Denoiser:
    """What every program of a diffusion model needs of its package."""

    def __init__(self, spec: ModelSpec) -> None:
        assert spec.diffusion is not None
        self.spec = spec
        self.data = spec.data
        self.shape: tuple[int, ...] = spec.data.shape
        self.elements = spec.data.elements
        dtypes = {i.name: i.dtype for i in spec.components[COMPONENT].inputs}
        self.process = Process(spec.diffusion, integer_time=dtypes["t"].startswith("int"))
        self.diffusion = spec.diffusion
        self.plans: dict[tuple[object, ...], Plan] = {}  # of samplers, by what was asked

    @property
    def schedule(self) -> str:
        """vp, ve or flow."""
        return self.diffusion.schedule.kind

    @property
    def learns_variance(self) -> bool:
        """Whether the network's output is followed by as much that interpolates the log variance."""
        return self.diffusion.variance == "learned_range"

    @property
    def guidable(self) -> bool:
        """Whether there is a condition, and each one has a value that means "none"."""
        conditions = self.spec.conditions
        return bool(conditions) and all(c.kind == "class" and c.null_value is not None for c in conditions)

    def choices(self, request: Request) -> Choices:
        """The choices among a request's parameters."""
        found = request.parameters
        return Choices(
            float(_number(found, "guidance_scale", 1.0)),
            float(_number(found, "guidance_rescale", 0.0)),
            bool(found.get("clip", self.diffusion.clip_default)),
            float(_number(found, "dynamic_threshold", 0.0)),
        )

    def to_model(self, data: Array) -> torch.Tensor:
        """Data [rows, *shape] in model coordinates, float32."""
        return units.to_model(self.data, data, "cpu")

    def conditions(self, request: Request, times: int = 1) -> dict[str, Array]:
        """Every condition of the package, each row ``times`` times in a row."""
        return {c.name: np.repeat(request.conditions[c.name], times, axis=0) for c in self.spec.conditions}


def rows_of(request: Request) -> NDArray[np.int64]:
    """The rows' noise counters: first_row + i."""
    return request.first_row + np.arange(request.rows, dtype=np.int64)


def _number(found: Mapping[str, object], name: str, default: float) -> float:
    value = found.get(name, default)
    return float(value) if isinstance(value, int | float) else default


class DataRows:
    """Rows of the denoising loop as reply data."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser

    def data(self, rows: NDArray[np.int64], state: Tensors) -> tuple[Array, None]:
        """``state["x"]`` in the data space."""
        return units.to_data(self._denoiser.data, state["x"]), None
