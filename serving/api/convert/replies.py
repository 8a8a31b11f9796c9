"""Results to response messages, one function per operation; without data they are summaries of streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from pxserve.v1 import (
    anomaly_pb2,
    data_pb2,
    inpaint_pb2,
    latent_pb2,
    likelihood_pb2,
    provenance_pb2,
    sample_pb2,
)
from serving.api.convert.rows import Writer
from serving.api.convert.tensors import tensor_of
from serving.api.convert.values import enum_number, fill
from serving.families.request import Array, Request, Value
from serving.families.result import (
    Anomalies,
    Completed,
    Decoded,
    Encoded,
    Interpolated,
    Reconstructed,
    Result,
    Sampled,
    Scored,
)


@dataclass(frozen=True)
class Frame:
    """What a reply needs beside its result; ``with_data`` false makes the summary of a stream."""

    request: Request
    writer: Writer
    provenance: provenance_pb2.Provenance
    with_data: bool = True

    def data(self, rows: Array, lengths: NDArray[np.int32] | None, message: Message) -> None:
        """Write rows into ``message.data``."""
        if self.with_data:
            getattr(message, "data").CopyFrom(self.writer.data(rows, lengths))  # noqa: B009


def reply_of(result: Result, frame: Frame) -> Message:
    """The response message of a result."""
    return _WRITERS[type(result)](result, frame)


def sampled(result: Sampled, frame: Frame) -> sample_pb2.SampleResponse:
    """SampleResponse."""
    message = sample_pb2.SampleResponse(
        kind=sample_pb2.SampleKind.Value(f"SAMPLE_KIND_{result.kind.name}"),
        log_prob=_floats(result.log_prob),
        sampling_log_prob=_floats(result.sampling_log_prob),
        finish_reasons=[
            sample_pb2.FinishReason.Value(f"FINISH_REASON_{reason.name}") for reason in result.finish_reasons
        ],
        parameters=sample_parameters(frame.request.method, resolved(result, frame.request)),
        provenance=frame.provenance,
    )
    frame.data(result.data, result.lengths, message)
    return message


def scored(result: Scored, frame: Frame) -> likelihood_pb2.LikelihoodResponse:
    """LikelihoodResponse."""
    message = likelihood_pb2.LikelihoodResponse(
        log_prob=result.log_prob,
        bits_per_dim=result.bits_per_dim,
        scored_dims=result.scored_dims.tolist(),
        kind=likelihood_pb2.LikelihoodKind.Value(f"LIKELIHOOD_KIND_{result.kind.name}"),
        target=result.target,
        standard_error=_floats(result.standard_error),
        effective_sample_size=_floats(result.effective_sample_size),
        solver_error=_floats(result.solver_error),
        network_evaluations=() if result.network_evaluations is None else result.network_evaluations.tolist(),
        base_measure=likelihood_pb2.BaseMeasure.Value(f"BASE_MEASURE_{result.base_measure.name}"),
        terms=[likelihood_pb2.Term(name=name, nats=nats) for name, nats in result.terms.items()],
        parameters=likelihood_parameters(frame.request.method, resolved(result, frame.request)),
        provenance=frame.provenance,
    )
    enum = likelihood_pb2.Dequantization.DESCRIPTOR
    setattr(message, "dequantization", enum_number(enum, result.dequantization))  # noqa: B010
    if result.log_prob_map is not None:
        message.log_prob_map.CopyFrom(_float_tensor(result.log_prob_map))
    return message


def completed(result: Completed, frame: Frame) -> inpaint_pb2.InpaintResponse:
    """InpaintResponse."""
    message = inpaint_pb2.InpaintResponse(
        kind=inpaint_pb2.CompletionKind.Value(f"COMPLETION_KIND_{result.kind.name}"),
        effective_sample_size=_floats(result.effective_sample_size),
        log_evidence=_floats(result.log_evidence),
        parameters=inpaint_parameters(frame.request.method, resolved(result, frame.request)),
        provenance=frame.provenance,
    )
    lengths = None if result.lengths is None else np.repeat(result.lengths, result.data.shape[1])
    frame.data(result.data, lengths, message)
    if result.mean is not None:
        message.mean.CopyFrom(_float_tensor(result.mean))
    if result.variance is not None:
        message.variance.CopyFrom(_float_tensor(result.variance))
    if result.entropy is not None:
        message.entropy.CopyFrom(_float_tensor(result.entropy))
    return message


def _anomalies(result: Anomalies, frame: Frame) -> anomaly_pb2.ScoreAnomalyResponse:
    message = anomaly_pb2.ScoreAnomalyResponse(
        score=result.score,
        p_value=_floats(result.p_value),
        calibration_size=result.calibration_size,
        calibration_digest=result.calibration_digest,
        method=frame.request.method,
        provenance=frame.provenance,
    )
    if result.score_map is not None:
        message.score_map.CopyFrom(_float_tensor(result.score_map))
    return message


def _encoded(result: Encoded, frame: Frame) -> latent_pb2.EncodeResponse:
    return latent_pb2.EncodeResponse(
        latents=_float_tensor(result.latents),
        round_trip_error=_floats(result.round_trip_error),
        provenance=frame.provenance,
    )


def _decoded(result: Decoded, frame: Frame) -> latent_pb2.DecodeResponse:
    message = latent_pb2.DecodeResponse(provenance=frame.provenance)
    frame.data(result.data, result.lengths, message)
    return message


def _reconstructed(result: Reconstructed, frame: Frame) -> latent_pb2.ReconstructResponse:
    message = latent_pb2.ReconstructResponse(error=result.error, provenance=frame.provenance)
    frame.data(result.data, result.lengths, message)
    return message


def _interpolated(result: Interpolated, frame: Frame) -> latent_pb2.InterpolateResponse:
    message = latent_pb2.InterpolateResponse(path=result.path, provenance=frame.provenance)
    frame.data(result.data, result.lengths, message)
    return message


def resolved(result: Result | None, request: Request) -> Mapping[str, Value]:
    """Every parameter that was used: the request's, and what the family settled."""
    return {**request.parameters, **(result.parameters if result is not None else {})}


def sample_parameters(method: str, values: Mapping[str, Value]) -> sample_pb2.SampleParameters:
    """SampleParameters; the method is the sampler unless a sampler is a parameter of the method."""
    message = sample_pb2.SampleParameters()
    fill(message, {"sampler": method, **values})
    return message


def likelihood_parameters(method: str, values: Mapping[str, Value]) -> likelihood_pb2.LikelihoodParameters:
    """LikelihoodParameters."""
    message = likelihood_pb2.LikelihoodParameters()
    fill(message, {**values, "method": method})
    return message


def inpaint_parameters(method: str, values: Mapping[str, Value]) -> inpaint_pb2.InpaintParameters:
    """InpaintParameters; those of the sampling one level deeper."""
    message = inpaint_pb2.InpaintParameters()
    fill(message, {**values, "method": method})
    fill(message.sampling, values)
    return message


def _floats(values: NDArray[np.float64] | None) -> list[float]:
    return [] if values is None else values.tolist()


def _float_tensor(values: Array) -> data_pb2.Tensor:
    return tensor_of(values.astype(np.float32, copy=False))


_WRITERS: dict[type, Callable[..., Message]] = {
    Sampled: sampled,
    Scored: scored,
    Completed: completed,
    Anomalies: _anomalies,
    Encoded: _encoded,
    Decoded: _decoded,
    Reconstructed: _reconstructed,
    Interpolated: _interpolated,
}
