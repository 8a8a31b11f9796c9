"""Diffusion, score and flow models: what can be asked, and which program answers."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from export.package.schema import DataSpace, ModelSpec
from serving.families.calibration import Calibration
from serving.families.capability import Capability
from serving.families.diffusion import methods, sample
from serving.families.diffusion.denoiser import COMPONENT, TABLE, Denoiser
from serving.families.diffusion.table import DenoiseTable
from serving.families.request import Request
from serving.families.rows import Program, Table


class DiffusionFamily:
    """p(x) by removing noise: x = alpha x0 + sigma e, from pure noise to data."""

    name = "diffusion"

    def __init__(self, spec: ModelSpec, calibration: Calibration | None = None) -> None:
        self.spec = spec
        self.calibration = calibration
        self.denoiser = Denoiser(spec)

    @property
    def latent(self) -> DataSpace | None:
        """The noise that a deterministic sampler starts from: one number per element of the data."""
        shape = self.spec.data.shape
        return DataSpace(kind="vector", axes=self.spec.data.axes, shape=shape, dtype="float32")

    def capabilities(self) -> tuple[Capability, ...]:
        """See ``methods``."""
        return (methods.sample(self.denoiser),)

    def program(self, request: Request) -> Program:
        """The program of a request."""
        return sample.sample(self.denoiser, request)

    def network_rows(self, request: Request) -> dict[str, int]:
        """Network rows of the denoiser."""
        plan = sample.plan_for(self.denoiser, request)
        return {COMPONENT: request.rows * len(plan) * (2 if plan.guided else 1)}

    def tables(
        self, components: Mapping[str, object], capacity: int, device: torch.device
    ) -> dict[str, Table]:
        """The denoising table."""
        return {TABLE: DenoiseTable(self.spec.data.shape, self.spec.conditions, capacity, device)}
