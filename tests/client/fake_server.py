"""A server of the contract without models: it records what it gets and answers by arithmetic."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
import numpy as np
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from pxserve.arrays import from_tensor, to_tensor
from pxserve.v1 import (
    anomaly_pb2,
    data_pb2,
    generative_service_pb2_grpc,
    inpaint_pb2,
    latent_pb2,
    likelihood_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    provenance_pb2,
    sample_pb2,
    stream_pb2,
)
from tests.client.fake_models import DIGITS, TEXT


@dataclass(frozen=True)
class Failure:
    """What the next call gets instead of an answer."""

    code: grpc.StatusCode
    message: str = "no"
    details: tuple[Any, ...] = ()


def retry_after(seconds: float) -> error_details_pb2.RetryInfo:
    return error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=int(seconds * 1e9)))


@dataclass
class Script:
    """What the server saw and what it is to do."""

    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    failures: deque[Failure] = field(default_factory=deque)
    deadline_s: list[float] = field(default_factory=list)
    lookup_s: float = 0.0  # how long GetModel takes
    hold: threading.Event | None = None  # answers wait for it
    arrived: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def last(self, kind: type[Any]) -> Any:
        return next(request for request in reversed(self.requests) if isinstance(request, kind))

    def count(self, kind: type[Any]) -> int:
        return sum(isinstance(request, kind) for request in self.requests)

    def receive(self, request: Any, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        self.metadata.append({str(k): str(v) for k, v in context.invocation_metadata()})
        self.deadline_s.append(context.time_remaining() or float("inf"))
        if self.failures and not isinstance(request, model_service_pb2.GetModelRequest):
            abort(context, self.failures.popleft())
        if self.hold is not None and not isinstance(request, model_service_pb2.GetModelRequest):
            context.add_callback(self.cancelled.set)
            self.arrived.set()
            self.hold.wait(10)


def abort(context: grpc.ServicerContext, failure: Failure) -> NoReturn:
    status = status_pb2.Status(code=failure.code.value[0], message=failure.message)
    for detail in failure.details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.set_trailing_metadata(
        (("grpc-status-details-bin", status.SerializeToString()), ("x-request-id", "r1"))
    )
    context.abort(failure.code, failure.message)
    raise AssertionError


def provenance(request: Any, **values: Any) -> provenance_pb2.Provenance:
    return provenance_pb2.Provenance(
        request_id="r1",
        model=request.model,
        version=3,
        method="ddpm",
        seed=request.seed,
        first_row=getattr(request, "first_row", 0),
        determinism=provenance_pb2.DETERMINISM_BATCH_INVARIANT,
        parameters={"steps": "10"},
        **values,
    )


def drawn(request: sample_pb2.SampleRequest) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Row i is filled with (seed + first_row + i) mod 17."""
    levels = (request.seed + request.first_row + np.arange(request.n)) % 17
    return np.broadcast_to(levels[:, None, None, None], (request.n, 1, 8, 8)).astype(np.uint8)


def pack(array: np.ndarray[Any, Any]) -> data_pb2.Data:
    return data_pb2.Data(tensor=to_tensor(array))


class Generative(generative_service_pb2_grpc.GenerativeServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def Sample(self, request: Any, context: Any) -> sample_pb2.SampleResponse:  # noqa: N802
        self.script.receive(request, context)
        if request.model == "text":
            return self.text(request)
        return sample_pb2.SampleResponse(
            data=pack(drawn(request)),
            kind=sample_pb2.SAMPLE_KIND_MODIFIED,
            parameters=request.parameters,
            log_prob=[-1.5] * request.n,
            provenance=provenance(request, tolerance=0.25),
        )

    def text(self, request: Any) -> sample_pb2.SampleResponse:
        tokens = to_tensor(np.array([[104, 105, 0], [104, 101, 121]], np.int32))
        return sample_pb2.SampleResponse(
            data=data_pb2.Data(texts=data_pb2.Texts(texts=["hi", "hey"], tokens=tokens), lengths=[2, 3]),
            finish_reasons=[sample_pb2.FINISH_REASON_STOP, sample_pb2.FINISH_REASON_LENGTH],
            provenance=provenance(request),
        )

    def StreamSample(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        reply = sample_pb2.StreamSampleResponse
        yield reply(progress=stream_pb2.Progress(steps_done=1, steps_total=2, predicted_seconds_left=0.5))
        self.script.receive(request, context)
        rows = drawn(request.request)
        yield reply(preview=stream_pb2.Preview(row=0, data=pack(rows[:1]), step=1))
        yield reply(text=stream_pb2.TextDelta(row=0, text="h", tokens=[104]))
        for row in reversed(range(len(rows))):
            yield reply(row=stream_pb2.SampleRow(row=row, data=pack(rows[row : row + 1])))
        yield reply(
            summary=sample_pb2.SampleResponse(
                kind=sample_pb2.SAMPLE_KIND_DISCRETIZED, provenance=provenance(request.request)
            )
        )

    def Likelihood(self, request: Any, context: Any) -> likelihood_pb2.LikelihoodResponse:  # noqa: N802
        self.script.receive(request, context)
        return scored(request, -2.0)

    def StreamLikelihood(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        self.script.receive(request, context)
        yield likelihood_pb2.StreamLikelihoodResponse(estimate=scored(request.request, -3.0))
        yield likelihood_pb2.StreamLikelihoodResponse(result=scored(request.request, -2.0))

    def Inpaint(self, request: Any, context: Any) -> inpaint_pb2.InpaintResponse:  # noqa: N802
        self.script.receive(request, context)
        data = from_tensor(request.data.tensor)
        return inpaint_pb2.InpaintResponse(
            data=pack(np.repeat(data[:, None], request.n, axis=1)),
            kind=inpaint_pb2.COMPLETION_KIND_CONSISTENT,
            effective_sample_size=[3.0] * len(data),
            parameters=request.parameters,
            provenance=provenance(request),
        )

    def StreamInpaint(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        self.script.receive(request, context)
        data = from_tensor(request.request.data.tensor)
        for row in range(len(data) * request.request.n):
            one = pack(data[row // request.request.n][None])
            yield inpaint_pb2.StreamInpaintResponse(row=stream_pb2.SampleRow(row=row, data=one))
        yield inpaint_pb2.StreamInpaintResponse(
            summary=inpaint_pb2.InpaintResponse(provenance=provenance(request.request))
        )

    def ScoreAnomaly(self, request: Any, context: Any) -> anomaly_pb2.ScoreAnomalyResponse:  # noqa: N802
        self.script.receive(request, context)
        return anomaly_pb2.ScoreAnomalyResponse(
            score=[1.25],
            p_value=[0.01],
            calibration_size=99,
            method="typicality",
            provenance=provenance(request),
        )

    def Encode(self, request: Any, context: Any) -> latent_pb2.EncodeResponse:  # noqa: N802
        self.script.receive(request, context)
        rows = len(from_tensor(request.data.tensor))
        return latent_pb2.EncodeResponse(
            latents=to_tensor(np.ones((rows, 4), np.float32)), provenance=provenance(request)
        )

    def Decode(self, request: Any, context: Any) -> latent_pb2.DecodeResponse:  # noqa: N802
        self.script.receive(request, context)
        rows = len(from_tensor(request.latents))
        return latent_pb2.DecodeResponse(
            data=pack(np.full((rows, 1, 8, 8), 16, np.uint8)), provenance=provenance(request)
        )

    def Reconstruct(self, request: Any, context: Any) -> latent_pb2.ReconstructResponse:  # noqa: N802
        self.script.receive(request, context)
        rows = from_tensor(request.data.tensor)
        return latent_pb2.ReconstructResponse(
            data=request.data, error=[0.5] * len(rows), provenance=provenance(request)
        )

    def Interpolate(self, request: Any, context: Any) -> latent_pb2.InterpolateResponse:  # noqa: N802
        self.script.receive(request, context)
        start = from_tensor(request.start.tensor)
        return latent_pb2.InterpolateResponse(
            data=pack(np.repeat(start[:, None], request.points, axis=1)),
            path="spherical",
            provenance=provenance(request),
        )


def scored(request: Any, log_prob: float) -> likelihood_pb2.LikelihoodResponse:
    rows = max(len(request.data.texts.texts), *request.data.tensor.shape[:1], 1)
    return likelihood_pb2.LikelihoodResponse(
        log_prob=[log_prob] * rows,
        bits_per_dim=[0.25] * rows,
        scored_dims=[64] * rows,
        kind=likelihood_pb2.LIKELIHOOD_KIND_STOCHASTIC_LOWER_BOUND,
        target="model",
        standard_error=[0.5] * rows,
        base_measure=likelihood_pb2.BASE_MEASURE_COUNTING,
        dequantization=request.parameters.dequantization,
        terms=[likelihood_pb2.Term(name="kl", nats=[-1.0] * rows)],
        parameters=request.parameters,
        provenance=provenance(request),
    )


class Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def ListModels(self, request: Any, context: Any) -> model_service_pb2.ListModelsResponse:  # noqa: N802
        self.script.receive(request, context)
        if request.page_token:
            return model_service_pb2.ListModelsResponse(models=[TEXT])
        return model_service_pb2.ListModelsResponse(models=[DIGITS], next_page_token="2")

    def GetModel(self, request: Any, context: Any) -> model_service_pb2.GetModelResponse:  # noqa: N802
        self.script.receive(request, context)
        time.sleep(self.script.lookup_s)
        model = {"digits": DIGITS, "text": TEXT}.get(request.model)
        if model is None:
            info = error_details_pb2.ErrorInfo(reason="MODEL_NOT_FOUND")
            abort(context, Failure(grpc.StatusCode.NOT_FOUND, f"no model {request.model}", (info,)))
        return model_service_pb2.GetModelResponse(model=model)

    def LoadModel(self, request: Any, context: Any) -> model_service_pb2.LoadModelResponse:  # noqa: N802
        self.script.receive(request, context)
        return model_service_pb2.LoadModelResponse(model=DIGITS)

    def UnloadModel(self, request: Any, context: Any) -> model_service_pb2.UnloadModelResponse:  # noqa: N802
        self.script.receive(request, context)
        return model_service_pb2.UnloadModelResponse(model=DIGITS)

    def SelfTest(self, request: Any, context: Any) -> model_service_pb2.SelfTestResponse:  # noqa: N802
        self.script.receive(request, context)
        check = model_service_pb2.Check(
            name="replay", verdict=model_service_pb2.VERDICT_PASS, holds_for_any_weights=True
        )
        return model_service_pb2.SelfTestResponse(checks=[check], provenance=provenance(request))


def start(script: Script) -> tuple[grpc.Server, str]:
    """Serve on a free port of this machine; returns the server and its address."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=4), options=[("grpc.max_receive_message_length", -1)]
    )
    generative_service_pb2_grpc.add_GenerativeServiceServicer_to_server(Generative(script), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(script), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"
