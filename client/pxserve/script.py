"""Calls as scripts: generators that yield calls, are resumed with the replies, and return an answer.

A script knows nothing of transports, so the blocking and the asynchronous client run the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from pxserve.v1 import generative_service_pb2, model_service_pb2
from pxserve.v1.anomaly_pb2 import ScoreAnomalyResponse
from pxserve.v1.inpaint_pb2 import InpaintResponse, StreamInpaintResponse
from pxserve.v1.latent_pb2 import DecodeResponse, EncodeResponse, InterpolateResponse, ReconstructResponse
from pxserve.v1.likelihood_pb2 import LikelihoodResponse, StreamLikelihoodResponse
from pxserve.v1.model_service_pb2 import (
    GetModelResponse,
    ListModelsResponse,
    LoadModelResponse,
    SelfTestResponse,
    UnloadModelResponse,
)
from pxserve.v1.sample_pb2 import SampleResponse, StreamSampleResponse

Reply = TypeVar("Reply", bound=Message)
R = TypeVar("R")


@dataclass(frozen=True)
class Rpc(Generic[Reply]):
    """A method of a service: its path, and how its replies parse."""

    path: str
    parse: Callable[[bytes], Reply]


@dataclass(frozen=True)
class Delivery:
    """How to send: ``timeout_s`` becomes the deadline of the whole script.

    ``request_id`` and ``priority`` become the metadata entries x-request-id and x-priority.
    """

    timeout_s: float | None = None
    request_id: str | None = None
    priority: int | None = None


@dataclass(frozen=True)
class Call(Generic[Reply]):
    """One unary call; the reply of a ``cached`` one may be an earlier reply to the same request."""

    rpc: Rpc[Reply]
    request: Message
    delivery: Delivery
    cached: bool = False


@dataclass(frozen=True)
class Stream(Generic[R]):
    """One server stream, and what its messages mean (None: unknown to this client)."""

    rpc: Rpc[Any]
    request: Message
    delivery: Delivery
    event: Callable[[Any], R | None]


Script = Generator[Call[Any], Any, R]


def ask(rpc: Rpc[Reply], request: Message, delivery: Delivery) -> Generator[Call[Reply], Reply, Reply]:
    """Make one call."""
    reply = yield Call(rpc, request, delivery)
    return reply


def look_up(rpc: Rpc[Reply], request: Message, delivery: Delivery) -> Generator[Call[Reply], Reply, Reply]:
    """Make one call whose reply seldom changes; it does not carry the request's id."""
    reply = yield Call(rpc, request, replace(delivery, request_id=None), cached=True)
    return reply


_GENERATIVE = f"/{generative_service_pb2.DESCRIPTOR.services_by_name['GenerativeService'].full_name}"
_MODEL = f"/{model_service_pb2.DESCRIPTOR.services_by_name['ModelService'].full_name}"

SAMPLE = Rpc(f"{_GENERATIVE}/Sample", SampleResponse.FromString)
STREAM_SAMPLE = Rpc(f"{_GENERATIVE}/StreamSample", StreamSampleResponse.FromString)
LIKELIHOOD = Rpc(f"{_GENERATIVE}/Likelihood", LikelihoodResponse.FromString)
STREAM_LIKELIHOOD = Rpc(f"{_GENERATIVE}/StreamLikelihood", StreamLikelihoodResponse.FromString)
INPAINT = Rpc(f"{_GENERATIVE}/Inpaint", InpaintResponse.FromString)
STREAM_INPAINT = Rpc(f"{_GENERATIVE}/StreamInpaint", StreamInpaintResponse.FromString)
SCORE_ANOMALY = Rpc(f"{_GENERATIVE}/ScoreAnomaly", ScoreAnomalyResponse.FromString)
ENCODE = Rpc(f"{_GENERATIVE}/Encode", EncodeResponse.FromString)
DECODE = Rpc(f"{_GENERATIVE}/Decode", DecodeResponse.FromString)
RECONSTRUCT = Rpc(f"{_GENERATIVE}/Reconstruct", ReconstructResponse.FromString)
INTERPOLATE = Rpc(f"{_GENERATIVE}/Interpolate", InterpolateResponse.FromString)
LIST_MODELS = Rpc(f"{_MODEL}/ListModels", ListModelsResponse.FromString)
GET_MODEL = Rpc(f"{_MODEL}/GetModel", GetModelResponse.FromString)
LOAD_MODEL = Rpc(f"{_MODEL}/LoadModel", LoadModelResponse.FromString)
UNLOAD_MODEL = Rpc(f"{_MODEL}/UnloadModel", UnloadModelResponse.FromString)
SELF_TEST = Rpc(f"{_MODEL}/SelfTest", SelfTestResponse.FromString)
