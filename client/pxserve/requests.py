"""Requests of the contract from what callers pass; shared by the unary calls and the streams."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import Message
from numpy.typing import ArrayLike

from pxserve import inputs
from pxserve.arrays import exactly, to_observed, to_tensor
from pxserve.inputs import Options, fill
from pxserve.script import Script
from pxserve.v1 import anomaly_pb2, inpaint_pb2, latent_pb2, likelihood_pb2, sample_pb2

M = TypeVar("M", bound=Message)


def sample(model: str, n: int, options: Options) -> Script[sample_pb2.SampleRequest]:
    """Draw ``n`` rows, after an optional prompt."""
    request = yield from _begin(sample_pb2.SampleRequest(model=model), model, {**options, "n": n})
    fill(request.parameters, options)
    prompt: Any = options.get("prompt")
    if prompt is not None:
        request.prompt.CopyFrom((yield from inputs.rows(model, prompt, "prompt", options)))
    return (yield from inputs.within_limits(request, model, options))


def likelihood(model: str, data: ArrayLike, options: Options) -> Script[likelihood_pb2.LikelihoodRequest]:
    """Score rows, or their observed entries."""
    request = yield from _begin(likelihood_pb2.LikelihoodRequest(model=model), model, options)
    fill(request.parameters, options)
    request.data.CopyFrom((yield from inputs.rows(model, data, "data", options)))
    if options.get("observed") is not None:
        request.observed.CopyFrom(to_observed(options["observed"]))
    return (yield from inputs.within_limits(request, model, options))


def inpaint(
    model: str, data: ArrayLike, observed: ArrayLike, n: int, options: Options
) -> Script[inpaint_pb2.InpaintRequest]:
    """Complete rows ``n`` times."""
    request = yield from _begin(inpaint_pb2.InpaintRequest(model=model), model, {**options, "n": n})
    fill(request.parameters, options)
    fill(request.parameters.sampling, options)
    request.data.CopyFrom((yield from inputs.rows(model, data, "data", options)))
    request.observed.CopyFrom(to_observed(observed))
    return (yield from inputs.within_limits(request, model, options))


def anomaly(model: str, data: ArrayLike, options: Options) -> Script[anomaly_pb2.ScoreAnomalyRequest]:
    """Say how strange rows are."""
    request = yield from _begin(anomaly_pb2.ScoreAnomalyRequest(model=model), model, options)
    request.data.CopyFrom((yield from inputs.rows(model, data, "data", options)))
    return (yield from inputs.within_limits(request, model, options))


def encode(model: str, data: ArrayLike, options: Options) -> Script[latent_pb2.EncodeRequest]:
    """Turn rows into latents."""
    request = yield from _begin(latent_pb2.EncodeRequest(model=model), model, options)
    request.data.CopyFrom((yield from inputs.rows(model, data, "data", options)))
    return (yield from inputs.within_limits(request, model, options))


def decode(model: str, latents: ArrayLike, options: Options) -> Script[latent_pb2.DecodeRequest]:
    """Turn latents, rounded to float32, into rows."""
    request = yield from _begin(latent_pb2.DecodeRequest(model=model), model, options)
    fill(request.parameters, options)
    request.latents.CopyFrom(to_tensor(exactly(np.asarray(latents), np.dtype(np.float32), "latents")))
    return (yield from inputs.within_limits(request, model, options))


def reconstruct(model: str, data: ArrayLike, options: Options) -> Script[latent_pb2.ReconstructRequest]:
    """Encode and decode rows."""
    request = yield from _begin(latent_pb2.ReconstructRequest(model=model), model, options)
    request.data.CopyFrom((yield from inputs.rows(model, data, "data", options)))
    return (yield from inputs.within_limits(request, model, options))


def interpolate(
    model: str, start: ArrayLike, end: ArrayLike, points: int, options: Options
) -> Script[latent_pb2.InterpolateRequest]:
    """Walk from rows to rows."""
    request = latent_pb2.InterpolateRequest(model=model)
    request = yield from _begin(request, model, {**options, "points": points})
    fill(request.parameters, options)
    request.start.CopyFrom((yield from inputs.rows(model, start, "start", options)))
    request.end.CopyFrom((yield from inputs.rows(model, end, "end", options)))
    return (yield from inputs.within_limits(request, model, options))


def _begin(request: M, model: str, options: Options) -> Script[M]:
    """The head that every request has, and its own plain fields."""
    fill(request, options)
    request.conditions.extend((yield from inputs.conditions(model, options)))  # type: ignore[attr-defined]
    return request
