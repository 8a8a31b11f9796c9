"""Replies of the contract as results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pxserve.arrays import Array, from_tensor
from pxserve.mirror import member, mirror, set_values
from pxserve.models import Provenance
from pxserve.results import (
    Anomalies,
    BaseMeasure,
    CompletionKind,
    Completions,
    Decoded,
    Dequantization,
    FinishReason,
    Floats,
    Ints,
    Latents,
    LikelihoodKind,
    Likelihoods,
    Reconstructions,
    SampleKind,
    Samples,
)
from pxserve.v1 import (
    anomaly_pb2,
    data_pb2,
    inpaint_pb2,
    latent_pb2,
    likelihood_pb2,
    provenance_pb2,
    sample_pb2,
)


@dataclass(frozen=True)
class Rows:
    """Data of a reply: ``data`` [rows, *shape] or [rows, per_row, *shape], ``text`` one each."""

    data: Array
    text: tuple[str, ...] = ()
    lengths: Ints | None = None


def rows(data: data_pb2.Data, per_row: int | None = None) -> Rows:
    """Parse; texts carry their token ids. ``per_row`` completions or points stand on an axis of their own."""
    lengths = np.asarray(data.lengths, np.int64) if data.lengths else None
    which = data.WhichOneof("value")
    if which == "tensor":
        return Rows(from_tensor(data.tensor), lengths=lengths)
    array: Array = from_tensor(data.texts.tokens) if data.texts.HasField("tokens") else np.zeros(0, np.int32)
    if per_row and array.size:
        array = array.reshape(-1, per_row, *array.shape[1:])
    return Rows(array, tuple(data.texts.texts), lengths)


def row(data: data_pb2.Data) -> tuple[Array, str]:
    """The only row, without its axis and padding, and its text."""
    found = rows(data)
    array = found.data[0] if len(found.data) else found.data
    if found.lengths is not None and array.ndim:
        array = array[: int(found.lengths[0])]
    return array, found.text[0] if found.text else ""


def samples(reply: sample_pb2.SampleResponse) -> Samples:
    """Of Sample, and of the summary of its stream."""
    found, reason = rows(reply.data), sample_pb2.FinishReason.DESCRIPTOR
    return Samples(
        data=found.data,
        kind=member(SampleKind, sample_pb2.SampleKind.DESCRIPTOR, reply.kind),
        provenance=provenance(reply.provenance),
        text=found.text,
        lengths=found.lengths,
        log_prob=_floats(reply.log_prob),
        sampling_log_prob=_floats(reply.sampling_log_prob),
        finish_reasons=tuple(member(FinishReason, reason, number) for number in reply.finish_reasons),
        parameters=set_values(reply.parameters),
    )


def likelihoods(reply: likelihood_pb2.LikelihoodResponse) -> Likelihoods:
    """Of Likelihood, and of the estimates and the result of its stream."""
    return Likelihoods(
        log_prob=np.asarray(reply.log_prob, np.float64),
        bits_per_dim=np.asarray(reply.bits_per_dim, np.float64),
        scored_dims=np.asarray(reply.scored_dims, np.int64),
        kind=member(LikelihoodKind, likelihood_pb2.LikelihoodKind.DESCRIPTOR, reply.kind),
        target=reply.target,
        base_measure=member(BaseMeasure, likelihood_pb2.BaseMeasure.DESCRIPTOR, reply.base_measure),
        dequantization=member(Dequantization, likelihood_pb2.Dequantization.DESCRIPTOR, reply.dequantization),
        provenance=provenance(reply.provenance),
        standard_error=_floats(reply.standard_error),
        effective_sample_size=_floats(reply.effective_sample_size),
        solver_error=_floats(reply.solver_error),
        network_evaluations=_ints(reply.network_evaluations),
        terms={term.name: np.asarray(term.nats, np.float64) for term in reply.terms},
        log_prob_map=from_tensor(reply.log_prob_map) if reply.HasField("log_prob_map") else None,
        parameters=set_values(reply.parameters),
    )


def completions(reply: inpaint_pb2.InpaintResponse, n: int) -> Completions:
    """Of Inpaint with ``n`` completions per row, and of the summary of its stream."""
    found = rows(reply.data, n)
    lengths = found.lengths.reshape(-1, n) if found.lengths is not None else None
    return Completions(
        data=found.data,
        kind=member(CompletionKind, inpaint_pb2.CompletionKind.DESCRIPTOR, reply.kind),
        provenance=provenance(reply.provenance),
        text=found.text,
        lengths=lengths,
        effective_sample_size=_floats(reply.effective_sample_size),
        log_evidence=_floats(reply.log_evidence),
        mean=from_tensor(reply.mean) if reply.HasField("mean") else None,
        variance=from_tensor(reply.variance) if reply.HasField("variance") else None,
        entropy=from_tensor(reply.entropy) if reply.HasField("entropy") else None,
        parameters=set_values(reply.parameters),
    )


def anomalies(reply: anomaly_pb2.ScoreAnomalyResponse) -> Anomalies:
    """Of ScoreAnomaly."""
    return Anomalies(
        score=np.asarray(reply.score, np.float64),
        method=reply.method,
        provenance=provenance(reply.provenance),
        p_value=_floats(reply.p_value),
        calibration_size=reply.calibration_size,
        calibration_digest=reply.calibration_digest,
        score_map=from_tensor(reply.score_map) if reply.HasField("score_map") else None,
    )


def latents(reply: latent_pb2.EncodeResponse) -> Latents:
    """Of Encode."""
    return Latents(from_tensor(reply.latents), provenance(reply.provenance), _floats(reply.round_trip_error))


def decoded(reply: latent_pb2.DecodeResponse) -> Decoded:
    """Of Decode."""
    found = rows(reply.data)
    return Decoded(found.data, provenance(reply.provenance), found.text, found.lengths)


def reconstructions(reply: latent_pb2.ReconstructResponse) -> Reconstructions:
    """Of Reconstruct."""
    found, error = rows(reply.data), np.asarray(reply.error, np.float64)
    return Reconstructions(found.data, error, provenance(reply.provenance), found.text, found.lengths)


def interpolations(reply: latent_pb2.InterpolateResponse, points: int) -> Samples:
    """Of Interpolate with ``points`` per walk."""
    found, source = rows(reply.data, points), provenance(reply.provenance)
    kind, text, lengths = SampleKind.UNSPECIFIED, found.text, found.lengths
    return Samples(found.data, kind, source, text=text, lengths=lengths, path=reply.path)


def provenance(message: provenance_pb2.Provenance) -> Provenance:
    """Of any reply."""
    return mirror(Provenance, message)


def _floats(values: Iterable[float]) -> Floats | None:
    array = np.asarray(list(values), np.float64)
    return array if array.size else None


def _ints(values: Iterable[int]) -> Ints | None:
    array = np.asarray(list(values), np.int64)
    return array if array.size else None
