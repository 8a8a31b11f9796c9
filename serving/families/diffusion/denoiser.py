"""One package's denoiser: its spaces, its process, its conditions, and how to ask the network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from export.package.schema import DataSpace, ModelSpec
from serving.families import units
from serving.families.diffusion.plan import Choices, Plan
from serving.families.diffusion.process import Process
from serving.families.request import Array, Request
from serving.families.rows import HostRows, Tensors

COMPONENT = "denoiser"
TABLE = "denoise"


def latent_space(spec: ModelSpec) -> DataSpace | None:
    """Where the process of a latent diffusion model runs; None where it runs on the data."""
    shape = spec.diffusion.latent_shape if spec.diffusion is not None else None
    if shape is None:
        return None
    return DataSpace(kind="vector", axes=("channel", "height", "width"), shape=shape, dtype="float32")


class Denoiser:
    """What every program of a diffusion model needs of its package; ``data``: where its process runs."""

    def __init__(self, spec: ModelSpec) -> None:
        assert spec.diffusion is not None
        self.spec = spec
        self.data = latent_space(spec) or spec.data
        self.shape: tuple[int, ...] = self.data.shape
        self.elements = self.data.elements
        dtypes = {i.name: i.dtype for i in spec.components[COMPONENT].inputs}
        self.process = Process(spec.diffusion, integer_time=dtypes["t"].startswith("int"))
        self.diffusion = spec.diffusion
        self.plans: dict[tuple[object, ...], Plan] = {}  # of samplers, by what was asked
        self._to_data = units.to_data_of(self.data)
        self.shown = DataRows(self)
        self.last_plan: tuple[Request | None, Plan | None] = (None, None)  # one tuple: threads never see half

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
        """Whether there is a class or a text, and each one has a value that means "none"."""
        given = [c for c in self.spec.conditions if c.kind != "vector"]  # vectors stay in both predictions
        return bool(given) and all(c.kind == "text" or c.null_value is not None for c in given)

    def nulls(self) -> dict[str, Array | None]:
        """The null values of the conditions that guidance drops; None where rows bring their own."""
        given = self.spec.conditions
        nulls: dict[str, Array | None] = {c.name: None for c in given if c.kind == "text"}
        return nulls | {c.name: np.array(c.null_value, np.int64) for c in given if c.null_value is not None}

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

    def to_data(self, x: torch.Tensor) -> Array:
        """Model coordinates [rows, *shape] in the data space."""
        return self._to_data(x.numpy(force=True))

    def data_of(self, state: Tensors) -> Array:
        """``x`` of a loop's rows in the data space."""
        return self._to_data(HostRows.array(state, "x"))

    def conditions(self, request: Request, times: int = 1) -> dict[str, Array]:
        """Every condition of the package, each row ``times`` times in a row."""
        given = {c.name: request.conditions[c.name] for c in self.spec.conditions}
        return given if times == 1 else {n: np.repeat(v, times, axis=0) for n, v in given.items()}

    def given_nulls(self, request: Request, times: int = 1) -> dict[str, Array]:
        """The null values that rows bring, each row ``times`` times in a row."""
        names = [c.name for c in self.spec.conditions if null_key(c.name) in request.conditions]
        return {name: np.repeat(request.conditions[null_key(name)], times, axis=0) for name in names}


def null_key(name: str) -> str:
    """Under which a request's conditions carry the null value of one; no condition is called so."""
    return f"{name} (null)"


def rows_of(request: Request) -> NDArray[np.int64]:
    """The rows' noise counters: first_row + i."""
    return np.arange(request.first_row, request.first_row + request.rows, dtype=np.int64)


def _number(found: Mapping[str, object], name: str, default: float) -> float:
    value = found.get(name, default)
    return float(value) if isinstance(value, int | float) else default


class DataRows:
    """Rows of the denoising loop as reply data."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser

    def data(self, rows: NDArray[np.int64], state: Tensors) -> tuple[Array, None]:
        """``state["x"]`` in the data space."""
        return self._denoiser.data_of(state), None
