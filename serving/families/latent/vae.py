"""Variational autoencoder: z ~ N(0, I), x ~ p(x | z), with an encoder q(z | x)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from export.package.schema import ModelSpec
from kernels.philox import STREAM_LATENT
from serving.families import units
from serving.families.calibration import Calibration
from serving.families.capability import Capability, Method, Parameter
from serving.families.latent import vae_inpaint, vae_likelihood
from serving.families.latent.evaluator import Steps
from serving.families.latent.family import ROUND_TRIP, SCORE_MAP, Answerer, LatentFamily, Rows, single
from serving.families.latent.lanes import Lanes
from serving.families.latent.observation import observation_model
from serving.families.latent.run import Run
from serving.families.latent.structure import Structure, interpolation_parameters
from serving.families.latent.vae_model import VaeModel
from serving.families.request import Operation, Request
from serving.families.result import Result, Sampled, SampleKind

ANOMALY_SAMPLES = 64  # fixed, so that every score is comparable with the calibration's

ANCESTRAL = Method(
    "ancestral",
    "EXACT",
    (Parameter("observation_noise", "bool", True),),
    is_default=True,
    reference="Kingma and Welling 2014, section 2.1",
)
TYPICALITY = Method(
    "typicality",
    "ESTIMATE",
    (SCORE_MAP,),
    is_default=True,
    reference="Nalisnick et al. 2019, eq. 5, with the IWAE bound of 64 draws",
)
ENCODINGS = (
    Method("mean", "POINT_ESTIMATE", (ROUND_TRIP,), is_default=True),
    Method("sample", "EXACT", (ROUND_TRIP,), reference="Kingma and Welling 2014, eq. 9"),
)


class VaeFamily(LatentFamily):
    """Components ``encoder`` (x -> mean, log_variance) and ``decoder`` (latent -> observation)."""

    name = "vae"
    two_sided = frozenset({"typicality"})

    def __init__(self, spec: ModelSpec, calibration: Calibration | None = None) -> None:
        assert spec.vae is not None
        self.observation = observation_model(spec.data, spec.vae.observation)
        super().__init__(spec, calibration, spec.vae.latent_shape)

    def refusals(self) -> Mapping[Operation, str]:
        """Nothing is undefined."""
        return {}

    def answerers(self) -> tuple[Answerer, ...]:
        """All operations."""
        structure = Structure(self)
        scores = Capability(Operation.LIKELIHOOD, vae_likelihood.METHODS)
        completes = Capability(
            Operation.INPAINT, vae_inpaint.methods(self.observation, self.spec.data.levels)
        )
        decoder = Method("mean", "POINT_ESTIMATE", is_default=True)
        through = Method("mean", "POINT_ESTIMATE", is_default=True)
        between = Method("latent", "POINT_ESTIMATE", interpolation_parameters("slerp"), is_default=True)
        encodes = Capability(Operation.ENCODE, ENCODINGS)
        return (
            Answerer(single(Operation.SAMPLE, ANCESTRAL), self._sample, lambda r: {"decoder": r.rows}),
            Answerer(scores, self._likelihood, self._likelihood_rows),
            Answerer(completes, self._inpaint, vae_inpaint.inpaint_rows),
            Answerer(single(Operation.SCORE_ANOMALY, TYPICALITY), self.anomalies, _anomaly_rows),
            Answerer(encodes, structure.encode, _encode_rows),
            Answerer(single(Operation.DECODE, decoder), structure.decode, lambda r: {"decoder": r.rows}),
            Answerer(single(Operation.RECONSTRUCT, through), structure.reconstruct, _through_rows),
            Answerer(single(Operation.INTERPOLATE, between), structure.interpolate, _interpolate_rows),
        )

    def embed(self, run: Run, x: torch.Tensor, lanes: Lanes) -> Steps[torch.Tensor]:
        """Mean of q(z | x), or a draw of it where the method is ``sample``."""
        posterior = yield from VaeModel(run, self.observation).posterior(x, lanes)
        if run.request.operation is Operation.ENCODE and run.request.method == "sample":
            return posterior.transport(lanes.normal(STREAM_LATENT, 0, self.dims))
        return posterior.mean.float()

    def decode(self, run: Run, z: torch.Tensor, lanes: Lanes) -> Steps[torch.Tensor]:
        """E[x | z]."""
        return (yield from VaeModel(run, self.observation).decoded_mean(z, lanes))

    def statistic(self, run: Run) -> Steps[tuple[np.ndarray, np.ndarray | None]]:
        """-ln p(x) by the IWAE bound, nats; the map is -E_q ln p(x_i | z), which leaves the prior out."""
        proposal = yield from VaeModel(run, self.observation).proposal()
        lanes = run.lanes(ANOMALY_SAMPLES)
        log_weights = yield from proposal.log_weights(lanes)
        draws = log_weights.reshape(run.rows, ANOMALY_SAMPLES).cpu().numpy()
        score_map = (yield from self._map(run)) if run.flag("score_map") else None
        return -units.log_mean_exp(draws).value, score_map

    def _map(self, run: Run) -> Steps[np.ndarray]:
        model = VaeModel(run, self.observation)
        proposal = yield from model.proposal()
        lanes = run.lanes(ANOMALY_SAMPLES)
        z, _ = proposal.draw(lanes)
        total = torch.zeros((run.rows, *run.spec.data.shape), dtype=torch.float64, device=run.device)

        def add(outputs: dict[str, torch.Tensor], part: slice) -> None:
            owner = lanes.owner[part]
            total.index_add_(0, owner, -self.observation.log_prob(outputs, proposal.x[owner]))

        yield from model.decoder.each(z, lanes, add)
        return (total / ANOMALY_SAMPLES).float().cpu().numpy()

    def _sample(self, run: Run) -> Steps[Result]:
        """x ~ p(x | z) for z of the prior; without observation noise its mean, which is another law."""
        lanes = run.lanes()
        z = lanes.normal(STREAM_LATENT, 0, self.dims)
        outputs = yield from VaeModel(run, self.observation).decoder.outputs(z, lanes)
        noisy = run.flag("observation_noise")
        x = self.observation.sample(outputs, lanes, 0) if noisy else self.observation.mean(outputs)
        kind = SampleKind.EXACT if noisy else SampleKind.MODIFIED
        return Sampled(run.to_data(x), kind, parameters=run.parameters)

    def _likelihood(self, run: Run) -> Steps[Result]:
        return (yield from vae_likelihood.likelihood(run, self.observation))

    def _likelihood_rows(self, request: Request) -> Rows:
        return vae_likelihood.likelihood_rows(request, "decoder_vjp" in self.spec.components)

    def _inpaint(self, run: Run) -> Steps[Result]:
        return (yield from vae_inpaint.inpaint(run, self.observation))


def _anomaly_rows(request: Request) -> Rows:
    passes = 2 if request.parameters.get("score_map") else 1
    return {"encoder": passes * request.rows, "decoder": passes * ANOMALY_SAMPLES * request.rows}


def _through_rows(request: Request) -> Rows:
    return {"encoder": request.rows, "decoder": request.rows}


def _encode_rows(request: Request) -> Rows:
    return _through_rows(request) if request.parameters.get("round_trip") else {"encoder": request.rows}


def _interpolate_rows(request: Request) -> Rows:
    points = int(request.parameters["points"])  # type: ignore[arg-type]
    return {"encoder": 2 * request.rows, "decoder": points * request.rows}
