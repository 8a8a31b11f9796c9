"""Generative adversarial network: x = G(z), z ~ N(0, I); an implicit model, without a density."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from export.package.schema import ModelSpec
from kernels.philox import STREAM_LATENT
from serving.families import units
from serving.families.calibration import Calibration
from serving.families.capability import Capability, Method, Parameter
from serving.families.latent import surrogate
from serving.families.latent.evaluator import Steps
from serving.families.latent.family import ROUND_TRIP, SCORE_MAP, Answerer, LatentFamily, Rows, single
from serving.families.latent.inversion import inversion_rows, invert
from serving.families.latent.lanes import Lanes
from serving.families.latent.run import Run
from serving.families.latent.structure import Structure, interpolation_parameters
from serving.families.request import Operation, Request
from serving.families.result import Completed, CompletionKind, Result, Sampled, SampleKind

DISCRIMINATOR_WEIGHT = 0.1  # lambda of AnoGAN

GENERATOR = Method(
    "generator",
    "EXACT",
    (Parameter("truncation", "float", None, 1e-3, 10.0),),
    is_default=True,
    reference="Goodfellow et al. 2014; truncation: Brock et al. 2019, section 3.1",
)
MAP = Method("latent_map", "POINT_ESTIMATE", is_default=True, reference="Yeh et al. 2017")
ANNEALED = Method(
    "annealed_importance",
    "APPROXIMATE",
    (Parameter("particles", "int", 64, 1, 10_000), Parameter("steps", "int", 100, 1, 100_000)),
    reference="Neal 2001; converges to the conditional law of the surrogate with sigma of 0.2 model units",
)
ANOGAN = Method("anogan", "ESTIMATE", (SCORE_MAP,), is_default=True, reference="Schlegl et al. 2017, eq. 5")
INVERSION = Method(
    "inversion",
    "POINT_ESTIMATE",
    (ROUND_TRIP,),
    is_default=True,
    reference="Creswell and Bharath 2019; Levenberg-Marquardt from restarts",
)


class GanFamily(LatentFamily):
    """Components ``generator``; optionally ``discriminator``, ``encoder`` and ``generator_vjp``."""

    name = "gan"

    def __init__(self, spec: ModelSpec, calibration: Calibration | None = None) -> None:
        assert spec.gan is not None
        super().__init__(spec, calibration, spec.gan.latent_shape)

    def refusals(self) -> Mapping[Operation, str]:
        """Likelihood is answered for a declared surrogate; nothing else is undefined."""
        return {}

    def answerers(self) -> tuple[Answerer, ...]:
        """All operations."""
        structure = Structure(self)
        decoder = Method("generator", "EXACT", is_default=True)
        through = Method("inversion", "POINT_ESTIMATE", is_default=True, reference=INVERSION.reference)
        between = Method("latent", "POINT_ESTIMATE", interpolation_parameters("slerp"), is_default=True)
        completes = Capability(Operation.INPAINT, (MAP, ANNEALED))
        scores = single(Operation.LIKELIHOOD, surrogate.AIS)
        return (
            Answerer(single(Operation.SAMPLE, GENERATOR), self._sample, lambda r: {"generator": r.rows}),
            Answerer(scores, surrogate.likelihood, self._likelihood_rows),
            Answerer(completes, self._inpaint, self._inpaint_rows),
            Answerer(single(Operation.SCORE_ANOMALY, ANOGAN), self.anomalies, self._anomaly_rows),
            Answerer(single(Operation.ENCODE, INVERSION), structure.encode, self._encode_rows),
            Answerer(single(Operation.DECODE, decoder), structure.decode, lambda r: {"generator": r.rows}),
            Answerer(single(Operation.RECONSTRUCT, through), structure.reconstruct, self._through_rows),
            Answerer(single(Operation.INTERPOLATE, between), structure.interpolate, self._interpolate_rows),
        )

    def embed(self, run: Run, x: torch.Tensor, lanes: Lanes) -> Steps[torch.Tensor]:
        """The latent of least energy for x [rows, *shape]."""
        del lanes
        return (yield from invert(surrogate.problem(run, x, None)))

    def decode(self, run: Run, z: torch.Tensor, lanes: Lanes) -> Steps[torch.Tensor]:
        """G(z)."""
        outputs = yield from surrogate.generator(run).outputs(z, lanes)
        return outputs["mean"].float()

    def statistic(self, run: Run) -> Steps[tuple[np.ndarray, np.ndarray | None]]:
        """|x - G(z)|_1 in data units at the inversion z; with a discriminator, its logits' difference too.

        (1 - 0.1) residual + 0.1 |D(x) - D(G(z))|. The map is the residual's summands.
        """
        x, lanes = run.x(), run.lanes()
        z = yield from self.embed(run, x, lanes)
        again = yield from self.decode(run, z, lanes)
        residual = np.abs((again.double() - x.double()).cpu().numpy() / units.scale(self.spec.data))
        score_map = residual.astype(np.float32) if run.flag("score_map") else None
        statistic = residual.reshape(run.rows, -1).sum(axis=1)
        if "discriminator" in self.spec.components:
            pairs = run.lanes(2)
            both = torch.stack([x, again], dim=1).flatten(0, 1)
            outputs = yield from run.networks.outputs("discriminator", {"x": both}, pairs.owner)
            logits = outputs["logit"].double().reshape(run.rows, 2).cpu().numpy()
            difference = np.abs(logits[:, 0] - logits[:, 1])
            statistic = (1.0 - DISCRIMINATOR_WEIGHT) * statistic + DISCRIMINATOR_WEIGHT * difference
        return statistic, score_map

    def _sample(self, run: Run) -> Steps[Result]:
        """G(z); truncation t restricts every coordinate of z to [-t, t], which is another law."""
        lanes, limit = run.lanes(), run.number("truncation")
        if limit is None:
            z = lanes.normal(STREAM_LATENT, 0, self.dims)
        else:
            z = truncated_normal(lanes.uniform(STREAM_LATENT, 0, self.dims), limit)
        x = yield from self.decode(run, z, lanes)
        kind = SampleKind.EXACT if limit is None else SampleKind.MODIFIED
        return Sampled(run.to_data(x), kind, parameters=run.parameters)

    def _inpaint(self, run: Run) -> Steps[Result]:
        if run.request.method == ANNEALED.name:
            return (yield from surrogate.inpaint(run))
        copies = run.request.completions
        z = yield from invert(surrogate.problem(run, run.x(), run.observed), copies)
        x = yield from self.decode(run, z, run.lanes(copies))
        data = run.completed(x, copies)
        return Completed(data, CompletionKind.POINT_ESTIMATE, parameters=run.parameters)

    def _inversions(self, request: Request, searches: int, decodings: int = 0, groups: int = 1) -> Rows:
        """Rows of ``searches`` inversions and ``decodings`` of every row."""
        partial = request.observed is not None
        rows = inversion_rows(self.spec.components, partial, self.dims, groups)
        scaled = {name: searches * count * request.rows for name, count in rows.items()}
        return scaled | {"generator": scaled["generator"] + decodings * request.rows}

    def _likelihood_rows(self, request: Request) -> Rows:
        return surrogate.likelihood_rows(request, "generator_vjp" in self.spec.components)

    def _inpaint_rows(self, request: Request) -> Rows:
        copies = request.completions
        if request.method == ANNEALED.name:
            return surrogate.inpaint_rows(request, "generator_vjp" in self.spec.components)
        return self._inversions(request, 1, copies, copies)

    def _anomaly_rows(self, request: Request) -> Rows:
        rows = self._inversions(request, 1, 1)
        return rows | ({"discriminator": 2 * request.rows} if "discriminator" in self.spec.components else {})

    def _encode_rows(self, request: Request) -> Rows:
        return self._inversions(request, 1, 1 if request.parameters.get("round_trip") else 0)

    def _through_rows(self, request: Request) -> Rows:
        return self._inversions(request, 1, 1)

    def _interpolate_rows(self, request: Request) -> Rows:
        return self._inversions(request, 2, int(request.parameters["points"]))  # type: ignore[arg-type]


def truncated_normal(uniforms: torch.Tensor, limit: float) -> torch.Tensor:
    """N(0, 1) restricted to [-limit, limit], by its quantiles; float32."""
    edge = torch.special.ndtr(torch.tensor(-limit, dtype=torch.float64, device=uniforms.device))
    quantile = torch.special.ndtri(edge + uniforms.double() * (1.0 - 2.0 * edge))
    bounded: torch.Tensor = quantile.clamp(-limit, limit).float()
    return bounded
