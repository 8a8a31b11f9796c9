"""Every way to ask, once short and once so long that it can be interrupted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import Message

from export.zoo.data import digits
from pxserve import AsyncClient
from pxserve.v1 import anomaly_pb2, inpaint_pb2, latent_pb2, likelihood_pb2, sample_pb2

ROWS = digits().test.images
MANY = np.concatenate([ROWS] * 4)[:256]  # all verbs together fit a queue of 4,096 rows
UPPER = np.arange(8)[None, :, None] * np.ones((1, 1, 8)) < 4
LATENTS = np.linspace(-1, 1, 256 * 64, dtype=np.float32).reshape(256, 1, 8, 8)
PROSE = "The function returns "
DIFFUSION, LETTERS = "digits-diffusion", "text-autoregressive"

Ask = Callable[..., Any]


@dataclass(frozen=True)
class Verb:
    """``ask(client, long, **options)`` is a coroutine, or an asynchronous iterator where it streams."""

    name: str
    ask: Ask
    method: str  # gRPC method
    wrong: Message  # a request that cannot be answered

    @property
    def streams(self) -> bool:
        """Whether events come."""
        return self.method.startswith("Stream")

    async def run(self, client: AsyncClient, long: bool = False, **options: Any) -> list[np.ndarray]:
        """All arrays of the answer, of streams all rows in order."""
        if not self.streams:
            answer: Awaitable[Any] = self.ask(client, long, **options)
            return arrays(await answer)
        events: AsyncIterator[Any] = self.ask(client, long, **options)
        collected = [event async for event in events]
        rows = sorted((e for e in collected if hasattr(e, "data") and not hasattr(e, "step")), key=row_of)
        return [np.asarray(row.data) for row in rows] + arrays(collected[-1].result)


def row_of(event: Any) -> int:
    return int(event.row)


def arrays(answer: Any) -> list[np.ndarray]:
    return [value for _, value in sorted(vars(answer).items()) if isinstance(value, np.ndarray)]


def sample(client: AsyncClient, long: bool, **options: Any) -> Any:
    return client.sample(DIFFUSION, 256 if long else 2, steps=1000 if long else 10, seed=3, **options)


def text(client: AsyncClient, long: bool, **options: Any) -> Any:
    few, many = (1, 8), (64, 200)
    n, tokens = many if long else few
    return client.sample(LETTERS, n, prompt=PROSE, max_new_tokens=tokens, seed=3, **options)


def likelihood(client: AsyncClient, long: bool, **options: Any) -> Any:
    return client.likelihood(DIFFUSION, MANY if long else ROWS[:2], seed=3, **options)


def inpaint(client: AsyncClient, long: bool, **options: Any) -> Any:
    rows, method = (MANY[:64], None) if long else (ROWS[:2], "replacement")
    return client.inpaint(DIFFUSION, rows, UPPER, seed=3, method=method, **options)


def inpaint_slots(client: AsyncClient, long: bool, **options: Any) -> Any:
    rows = MANY if long else ROWS[:1]
    return client.inpaint("digits-autoregressive", rows, UPPER, seed=3, **options)


def anomaly(client: AsyncClient, long: bool, **options: Any) -> Any:
    return client.score_anomaly(DIFFUSION, MANY if long else ROWS[:1], seed=3, **options)


def encode(client: AsyncClient, long: bool, **options: Any) -> Any:
    return client.encode(DIFFUSION, MANY if long else ROWS[:2], steps=100 if long else 5, seed=3, **options)


def decode(client: AsyncClient, long: bool, **options: Any) -> Any:
    latents = LATENTS if long else LATENTS[:2]
    return client.decode(DIFFUSION, latents, steps=200 if long else 5, seed=3, **options)


def reconstruct(client: AsyncClient, long: bool, **options: Any) -> Any:
    return client.reconstruct(DIFFUSION, MANY if long else ROWS[:2], seed=3, **options)


def interpolate(client: AsyncClient, long: bool, **options: Any) -> Any:
    rows, points = (32, 12) if long else (1, 3)
    start, end = MANY[:rows], MANY[rows : 2 * rows]
    return client.interpolate(DIFFUSION, start, end, points=points, seed=3, **options)


def stream_sample(client: AsyncClient, long: bool, **options: Any) -> Any:
    n, steps = (256, 1000) if long else (2, 10)
    return client.stream_sample(DIFFUSION, n, steps=steps, seed=3, preview_every_steps=5, **options)


def stream_text(client: AsyncClient, long: bool, **options: Any) -> Any:
    n, tokens = (64, 200) if long else (1, 8)
    return client.stream_sample(
        LETTERS, n, prompt=PROSE, max_new_tokens=tokens, seed=3, preview_every_steps=1, **options
    )


def stream_inpaint(client: AsyncClient, long: bool, **options: Any) -> Any:
    rows, method = (MANY[:64], None) if long else (ROWS[:2], "replacement")
    return client.stream_inpaint(DIFFUSION, rows, UPPER, seed=3, method=method, **options)


def stream_likelihood(client: AsyncClient, long: bool, **options: Any) -> Any:
    return client.stream_likelihood(DIFFUSION, MANY if long else ROWS[:2], seed=3, **options)


_FLAWED = sample_pb2.SampleRequest(model=DIFFUSION, parameters=sample_pb2.SampleParameters(steps=100_000))
_MANY = sample_pb2.SampleRequest(model=LETTERS, n=100_000)
_LIKELIHOOD = likelihood_pb2.LikelihoodRequest(model=DIFFUSION)
_INPAINT = inpaint_pb2.InpaintRequest(model=DIFFUSION)

VERBS = (
    Verb("sample", sample, "Sample", _FLAWED),
    Verb("sample-text", text, "Sample", _MANY),
    Verb("likelihood", likelihood, "Likelihood", _LIKELIHOOD),
    Verb("inpaint", inpaint, "Inpaint", _INPAINT),
    Verb("inpaint-slots", inpaint_slots, "Inpaint", _INPAINT),
    Verb("anomaly", anomaly, "ScoreAnomaly", anomaly_pb2.ScoreAnomalyRequest(model=DIFFUSION)),
    Verb("encode", encode, "Encode", latent_pb2.EncodeRequest(model=DIFFUSION)),
    Verb("decode", decode, "Decode", latent_pb2.DecodeRequest(model=DIFFUSION)),
    Verb("reconstruct", reconstruct, "Reconstruct", latent_pb2.ReconstructRequest(model=DIFFUSION)),
    Verb("interpolate", interpolate, "Interpolate", latent_pb2.InterpolateRequest(model=DIFFUSION)),
    Verb("stream-sample", stream_sample, "StreamSample", sample_pb2.StreamSampleRequest(request=_FLAWED)),
    Verb("stream-text", stream_text, "StreamSample", sample_pb2.StreamSampleRequest(request=_MANY)),
    Verb(
        "stream-inpaint", stream_inpaint, "StreamInpaint", inpaint_pb2.StreamInpaintRequest(request=_INPAINT)
    ),
    Verb(
        "stream-likelihood",
        stream_likelihood,
        "StreamLikelihood",
        likelihood_pb2.StreamLikelihoodRequest(request=_LIKELIHOOD),
    ),
)
