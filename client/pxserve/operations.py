"""What can be asked, as scripts: each builds a request, asks, and returns the parsed reply.

``Client`` and ``AsyncClient`` have one method for each, with the same arguments; all raise PxserveError.
"""

from __future__ import annotations

from typing import Unpack

from numpy.typing import ArrayLike

from pxserve import parse, requests
from pxserve.inputs import delivery
from pxserve.options import (
    AnomalyOptions,
    EncodeOptions,
    InpaintOptions,
    InterpolateOptions,
    LikelihoodOptions,
    ReconstructOptions,
    SampleOptions,
    SamplerOptions,
)
from pxserve.results import Anomalies, Completions, Decoded, Latents, Likelihoods, Reconstructions, Samples
from pxserve.script import (
    DECODE,
    ENCODE,
    INPAINT,
    INTERPOLATE,
    LIKELIHOOD,
    RECONSTRUCT,
    SAMPLE,
    SCORE_ANOMALY,
    Script,
    ask,
)


def sample(model: str, n: int = 1, **options: Unpack[SampleOptions]) -> Script[Samples]:
    """Draw ``n`` rows [n, *shape]; the first m of them do not depend on n."""
    request = yield from requests.sample(model, n, options)
    return parse.samples((yield from ask(SAMPLE, request, delivery(options))))


def likelihood(model: str, data: ArrayLike, **options: Unpack[LikelihoodOptions]) -> Script[Likelihoods]:
    """Score rows [rows, *shape] (or texts): ln p in nats, its kind, and its standard error."""
    request = yield from requests.likelihood(model, data, options)
    return parse.likelihoods((yield from ask(LIKELIHOOD, request, delivery(options))))


def inpaint(
    model: str, data: ArrayLike, observed: ArrayLike, *, n: int = 1, **options: Unpack[InpaintOptions]
) -> Script[Completions]:
    """Complete rows [rows, *shape] ``n`` times where ``observed`` (bool, true = given) is false.

    ``observed`` has the shape of a row, of the data, or [height, width]; hidden entries are never read.
    """
    request = yield from requests.inpaint(model, data, observed, n, options)
    return parse.completions((yield from ask(INPAINT, request, delivery(options))), n)


def score_anomaly(model: str, data: ArrayLike, **options: Unpack[AnomalyOptions]) -> Script[Anomalies]:
    """Say how strange rows [rows, *shape] are: a score, and a p-value where the package is calibrated."""
    request = yield from requests.anomaly(model, data, options)
    return parse.anomalies((yield from ask(SCORE_ANOMALY, request, delivery(options))))


def encode(model: str, data: ArrayLike, **options: Unpack[EncodeOptions]) -> Script[Latents]:
    """Turn rows [rows, *shape] into latents [rows, *latent]."""
    request = yield from requests.encode(model, data, options)
    return parse.latents((yield from ask(ENCODE, request, delivery(options))))


def decode(model: str, latents: ArrayLike, **options: Unpack[SamplerOptions]) -> Script[Decoded]:
    """Turn latents [rows, *latent] into rows [rows, *shape]."""
    request = yield from requests.decode(model, latents, options)
    return parse.decoded((yield from ask(DECODE, request, delivery(options))))


def reconstruct(
    model: str, data: ArrayLike, **options: Unpack[ReconstructOptions]
) -> Script[Reconstructions]:
    """Encode rows [rows, *shape] and decode them again."""
    request = yield from requests.reconstruct(model, data, options)
    return parse.reconstructions((yield from ask(RECONSTRUCT, request, delivery(options))))


def interpolate(
    model: str, start: ArrayLike, end: ArrayLike, *, points: int = 8, **options: Unpack[InterpolateOptions]
) -> Script[Samples]:
    """Walk from rows ``start`` to rows ``end`` [rows, *shape] through the latents: [rows, points, *shape]."""
    request = yield from requests.interpolate(model, start, end, points, options)
    return parse.interpolations((yield from ask(INTERPOLATE, request, delivery(options))), points)
