"""Diffusion, score and flow models: what can be asked, and which program answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch

from export.package.schema import DataSpace, ModelSpec
from serving.families.calibration import Calibration
from serving.families.capability import Capability
from serving.families.diffusion import anomaly, filtering, inversion, likelihood, methods, replacement, sample
from serving.families.diffusion.cost import cost
from serving.families.diffusion.denoiser import TABLE, Denoiser
from serving.families.diffusion.latent_methods import in_latents
from serving.families.diffusion.latents import DIRECT, Inner, Latents
from serving.families.diffusion.table import DenoiseTable
from serving.families.diffusion.text import Texts, text_condition
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
        data = self.denoiser.data
        self.latent: DataSpace | None = DataSpace(
            kind="vector", axes=data.axes, shape=data.shape, dtype="float32"
        )
        self._latents = None if data is spec.data else Latents(spec.data, data)
        text = text_condition(spec)
        self._texts = None if text is None else Texts(text)

    def capabilities(self) -> tuple[Capability, ...]:
        """See ``methods``."""
        found = methods.capabilities(self.denoiser)
        return found if self._latents is None else tuple(in_latents(capability) for capability in found)

    def program(self, request: Request) -> Program:
        """The program of a request; FailedPrecondition or InvalidArgument where it has no answer."""
        return self._around(request, self._process)

    def _around(self, request: Request, process: Inner) -> Program:
        """The process between encoders and the decoder, where there are any."""
        latents, texts = self._latents, self._texts
        inner = (
            process if texts is None or request.method == DIRECT else partial(texts.program, inner=process)
        )
        return inner(request) if latents is None else latents.program(request, inner)

    def _process(self, request: Request) -> Program:
        """The program where the process runs: in the data, or in latents."""
        if request.operation is Operation.INPAINT:
            complete = filtering.smc if request.method == "smc" else replacement.complete
            return complete(self.denoiser, request)
        if request.operation is Operation.SCORE_ANOMALY:
            return anomaly.anomalies(self.denoiser, self.calibration, request)
        return PROGRAMS[request.operation](self.denoiser, request)

    def statistics(self, request: Request) -> Program:
        """For calibration: answers a ScoreAnomaly request with raw statistics as ``score``."""
        return self._around(request, partial(anomaly.statistics, self.denoiser))

    def network_rows(self, request: Request) -> dict[str, int]:
        """Network rows by component."""
        around = {} if self._latents is None else self._latents.network_rows(request)
        if request.method == DIRECT:
            return around
        component, rows, _ = cost(self.denoiser, request)
        return {
            component: rows,
            **around,
            **({} if self._texts is None else self._texts.network_rows(request)),
        }

    def depth(self, request: Request) -> int:
        """Network runs that wait for one another."""
        around = 0 if self._latents is None else len(self._latents.network_rows(request))
        around += int(self._texts is not None)
        return around + (0 if request.method == DIRECT else cost(self.denoiser, request)[2])

    def tables(
        self, components: Mapping[str, object], capacity: int, device: torch.device
    ) -> dict[str, Table]:
        """The denoising table."""
        denoiser, limit = self.denoiser, self.denoiser.diffusion.threshold_limit
        nulls = denoiser.nulls()
        table = DenoiseTable(
            denoiser.shape,
            self.spec.conditions,
            capacity,
            device,
            nulls,
            math.inf if limit is None else limit,
        )
        return {TABLE: table}
