"""Autoencoder: a code and its decoding; no p(x), so nothing to sample from and no likelihood."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from export.package.schema import ModelSpec
from serving.families import units
from serving.families.calibration import Calibration
from serving.families.capability import Capability, Method, Parameter
from serving.families.latent.evaluator import Steps
from serving.families.latent.family import ROUND_TRIP, SCORE_MAP, Answerer, LatentFamily, Rows, single
from serving.families.latent.lanes import Lanes
from serving.families.latent.run import Run
from serving.families.latent.structure import Structure, interpolation_parameters
from serving.families.request import Operation, Request
from serving.families.result import Completed, CompletionKind, Result

NO_DENSITY = (
    "an autoencoder defines no p(x): it {verb}; use a model of the family vae, diffusion or autoregressive"
)

FIXED_POINT = Method(
    "fixed_point",
    "POINT_ESTIMATE",
    (Parameter("sweeps", "int", 50, 1, 10_000),),
    is_default=True,
    reference="Rezende et al. 2014, app. F, without noise",
)
RECONSTRUCTION = Method("reconstruction", "ESTIMATE", (SCORE_MAP,), is_default=True)


class AutoencoderFamily(LatentFamily):
    """Components ``encoder`` (x -> latent) and ``decoder`` (latent -> x)."""

    name = "autoencoder"

    def __init__(self, spec: ModelSpec, calibration: Calibration | None = None) -> None:
        assert spec.autoencoder is not None
        super().__init__(spec, calibration, spec.autoencoder.latent_shape)

    def refusals(self) -> Mapping[Operation, str]:
        """There is no density."""
        return {
            Operation.SAMPLE: NO_DENSITY.format(verb="has no law over its codes to draw from"),
            Operation.LIKELIHOOD: NO_DENSITY.format(
                verb="measures no probability (its error is no likelihood)"
            ),
        }

    def answerers(self) -> tuple[Answerer, ...]:
        """Everything else."""
        structure = Structure(self)
        encoder = Method("encoder", "POINT_ESTIMATE", (ROUND_TRIP,), is_default=True)
        decoder = Method("decoder", "POINT_ESTIMATE", is_default=True)
        through = Method("reconstruction", "POINT_ESTIMATE", is_default=True)
        between = Method("latent", "POINT_ESTIMATE", interpolation_parameters("lerp"), is_default=True)
        anomaly = Capability(Operation.SCORE_ANOMALY, (RECONSTRUCTION,))
        return (
            Answerer(single(Operation.INPAINT, FIXED_POINT), _inpaint, _inpaint_rows),
            Answerer(anomaly, self.anomalies, _through_rows),
            Answerer(single(Operation.ENCODE, encoder), structure.encode, _encode_rows),
            Answerer(single(Operation.DECODE, decoder), structure.decode, lambda r: {"decoder": r.rows}),
            Answerer(single(Operation.RECONSTRUCT, through), structure.reconstruct, _through_rows),
            Answerer(single(Operation.INTERPOLATE, between), structure.interpolate, _interpolate_rows),
        )

    def embed(self, run: Run, x: torch.Tensor, lanes: Lanes) -> Steps[torch.Tensor]:
        """The code of x [lanes, *shape], float32 [lanes, d]."""
        return (yield from _encode(run, x, lanes))

    def decode(self, run: Run, z: torch.Tensor, lanes: Lanes) -> Steps[torch.Tensor]:
        """The decoding of codes [lanes, d]."""
        return (yield from _decode(run, z, lanes, self.latent_shape))

    def statistic(self, run: Run) -> Steps[tuple[np.ndarray, np.ndarray | None]]:
        """Squared reconstruction error, summed over a row, in squared data units; the map is its summands."""
        x, lanes = run.x(), run.lanes()
        z = yield from self.embed(run, x, lanes)
        again = yield from self.decode(run, z, lanes)
        difference = (again.double() - x.double()).cpu().numpy() / units.scale(self.spec.data)
        squares = np.square(difference)
        score_map = squares.astype(np.float32) if run.flag("score_map") else None
        return squares.reshape(run.rows, -1).sum(axis=1), score_map


def _encode(run: Run, x: torch.Tensor, lanes: Lanes) -> Steps[torch.Tensor]:
    outputs = yield from run.networks.outputs("encoder", {"x": x}, lanes.owner)
    return outputs["latent"].flatten(1)


def _decode(run: Run, z: torch.Tensor, lanes: Lanes, shape: tuple[int, ...]) -> Steps[torch.Tensor]:
    outputs = yield from run.networks.outputs("decoder", {"latent": z.reshape(-1, *shape)}, lanes.owner)
    return outputs["x"].float()


def _inpaint(run: Run) -> Steps[Result]:
    """x_missing <- decoder(encoder(x))_missing, ``sweeps`` times; every completion is the same."""
    assert run.spec.autoencoder is not None
    x, observed, lanes = run.x(), run.observed, run.lanes()
    assert observed is not None
    for _ in range(run.integer("sweeps")):
        z = yield from _encode(run, x, lanes)
        again = yield from _decode(run, z, lanes, run.spec.autoencoder.latent_shape)
        x = torch.where(observed, x, again)
    copies = run.request.completions
    data = run.completed(x.repeat_interleave(copies, dim=0), copies)
    return Completed(data, CompletionKind.POINT_ESTIMATE, parameters=run.parameters)


def _inpaint_rows(request: Request) -> Rows:
    sweeps = int(request.parameters["sweeps"])  # type: ignore[arg-type]
    return {"encoder": request.rows * sweeps, "decoder": request.rows * sweeps}


def _through_rows(request: Request) -> Rows:
    return {"encoder": request.rows, "decoder": request.rows}


def _encode_rows(request: Request) -> Rows:
    return _through_rows(request) if request.parameters.get("round_trip") else {"encoder": request.rows}


def _interpolate_rows(request: Request) -> Rows:
    points = int(request.parameters["points"])  # type: ignore[arg-type]
    return {"encoder": 2 * request.rows, "decoder": points * request.rows}
