"""Diffusion, score and flow models: what can be asked, and which program answers."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from export.package.schema import DataSpace, ModelSpec
from serving.families.calibration import Calibration
from serving.families.capability import Capability
from serving.families.diffusion import anomaly, filtering, inversion, likelihood, methods, replacement, sample
from serving.families.diffusion.cost import cost
from serving.families.diffusion.denoiser import TABLE, Denoiser
from serving.families.diffusion.table import DenoiseTable
from serving.families.request import Operation, Request
from serving.families.rows import Program, Table

PROGRAMS = {
    Operation.SAMPLE: sample.sample,
    Operation.LIKELIHOOD: likelihood.likelihood,
    Operation.ENCODE: inversion.encode,
    Operation.DECODE: inversion.decode,
    Operation.RECONSTRUCT: inversion.reconstruct,
    Operation.INTERPOLATE: inversion.interpolate,
}


class DiffusionFamily:
    """p(x) by removing noise: x = alpha x0 + sigma e, from pure noise to data."""

    name = "diffusion"
    two_sided = anomaly.TWO_SIDED

    def __init__(self, spec: ModelSpec, calibration: Calibration | None = None) -> None:
        self.spec = spec
        self.calibration = calibration
        self.denoiser = Denoiser(spec)
        data = spec.data
        self.latent: DataSpace | None = DataSpace(
            kind="vector", axes=data.axes, shape=data.shape, dtype="float32"
        )

    def capabilities(self) -> tuple[Capability, ...]:
        """See ``methods``."""
        return methods.capabilities(self.denoiser)

    def program(self, request: Request) -> Program:
        """The program of a request; FailedPrecondition or InvalidArgument where it has no answer."""
        if request.operation is Operation.INPAINT:
            complete = filtering.smc if request.method == "smc" else replacement.complete
            return complete(self.denoiser, request)
        if request.operation is Operation.SCORE_ANOMALY:
            return anomaly.anomalies(self.denoiser, self.calibration, request)
        return PROGRAMS[request.operation](self.denoiser, request)

    def statistics(self, request: Request) -> Program:
        """For calibration: answers a ScoreAnomaly request with raw statistics as ``score``."""
        return anomaly.statistics(self.denoiser, request)

    def network_rows(self, request: Request) -> dict[str, int]:
        """Network rows by component."""
        component, rows, _ = cost(self.denoiser, request)
        return {component: rows}

    def depth(self, request: Request) -> int:
        """Network runs that wait for one another."""
        return cost(self.denoiser, request)[2]

    def tables(
        self, components: Mapping[str, object], capacity: int, device: torch.device
    ) -> dict[str, Table]:
        """The denoising table."""
        return {TABLE: DenoiseTable(self.spec.data.shape, self.spec.conditions, capacity, device)}
