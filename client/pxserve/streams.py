"""The streams, as scripts that return what to open; their events end with a summary."""

from __future__ import annotations

from typing import Any, Unpack

from numpy.typing import ArrayLike

from pxserve import parse, requests
from pxserve.inputs import delivery
from pxserve.mirror import mirror
from pxserve.options import InpaintOptions, LikelihoodOptions, SampleOptions
from pxserve.results import (
    Completions,
    Estimate,
    Likelihoods,
    Preview,
    Progress,
    Row,
    Samples,
    Summary,
    TextDelta,
)
from pxserve.script import STREAM_INPAINT, STREAM_LIKELIHOOD, STREAM_SAMPLE, Script, Stream
from pxserve.v1 import inpaint_pb2, likelihood_pb2, sample_pb2

SampleEvent = Progress | Preview | TextDelta | Row | Summary[Samples]
InpaintEvent = Progress | Preview | Row | Summary[Completions]
LikelihoodEvent = Progress | Estimate | Summary[Likelihoods]


def stream_sample(
    model: str, n: int = 1, *, preview_every_steps: int = 0, **options: Unpack[SampleOptions]
) -> Script[Stream[SampleEvent]]:
    """Draw ``n`` rows; each comes as soon as it is final, previews every so many steps (0 = none)."""
    request = yield from requests.sample(model, n, options)
    message = sample_pb2.StreamSampleRequest(request=request, preview_every_steps=preview_every_steps)
    return Stream(STREAM_SAMPLE, message, delivery(options), _sample_event)


def stream_inpaint(
    model: str,
    data: ArrayLike,
    observed: ArrayLike,
    *,
    n: int = 1,
    preview_every_steps: int = 0,
    **options: Unpack[InpaintOptions],
) -> Script[Stream[InpaintEvent]]:
    """Complete rows ``n`` times; ``Row.row`` is data row × n + completion."""
    request = yield from requests.inpaint(model, data, observed, n, options)
    message = inpaint_pb2.StreamInpaintRequest(request=request, preview_every_steps=preview_every_steps)
    return Stream(STREAM_INPAINT, message, delivery(options), lambda reply: _inpaint_event(reply, n))


def stream_likelihood(
    model: str, data: ArrayLike, **options: Unpack[LikelihoodOptions]
) -> Script[Stream[LikelihoodEvent]]:
    """Score rows, with running estimates; the summary has the result."""
    request = yield from requests.likelihood(model, data, options)
    message = likelihood_pb2.StreamLikelihoodRequest(request=request)
    return Stream(STREAM_LIKELIHOOD, message, delivery(options), _likelihood_event)


def _sample_event(reply: sample_pb2.StreamSampleResponse) -> SampleEvent | None:
    if reply.HasField("summary"):
        return Summary(parse.samples(reply.summary))
    if reply.HasField("text"):
        return TextDelta(reply.text.row, reply.text.text, tuple(reply.text.tokens))
    return _common(reply)


def _inpaint_event(reply: inpaint_pb2.StreamInpaintResponse, n: int) -> InpaintEvent | None:
    if reply.HasField("summary"):
        return Summary(parse.completions(reply.summary, n))
    return _common(reply)


def _likelihood_event(reply: likelihood_pb2.StreamLikelihoodResponse) -> LikelihoodEvent | None:
    if reply.HasField("result"):
        return Summary(parse.likelihoods(reply.result))
    if reply.HasField("estimate"):
        return Estimate(parse.likelihoods(reply.estimate))
    return mirror(Progress, reply.progress) if reply.HasField("progress") else None


def _common(reply: Any) -> Progress | Preview | Row | None:
    """What samples and completions share; None for an event of a newer server."""
    match reply.WhichOneof("event"):
        case "progress":
            return mirror(Progress, reply.progress)
        case "preview":
            return Preview(reply.preview.row, parse.row(reply.preview.data)[0], reply.preview.step)
        case "row":
            return Row(reply.row.row, *parse.row(reply.row.data))
        case _:
            return None
