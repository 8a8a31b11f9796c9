"""The Open Inference Protocol (KServe v2) over the same engine: its words, pxserve's answers and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial

from serving.access.principal import ADMIN, INFER, OPEN
from serving.api import status
from serving.api.convert import infer_catalog, replies
from serving.api.convert.infer_replies import check_wanted, chosen, framed, response_of
from serving.api.convert.infer_requests import Inference, version_of
from serving.api.convert.provenance import server_version
from serving.api.generative import Generative
from serving.api.health import LIVENESS, MODEL, Health, Status
from serving.api.inference import open_inference_pb2 as pb
from serving.api.prepared import INLINE_ELEMENTS, Prepared, understand
from serving.api.rpc import Call, Method, Rpc
from serving.api.server import elsewhere
from serving.api.together import together
from serving.errors import ServingError, invalid
from serving.repository.control import Control

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
EXTENSIONS = ("model_configuration", "model_repository", "parameters")

Conversation = Callable[
    [AsyncIterator[pb.ModelInferRequest], Call], AsyncGenerator[pb.ModelStreamInferResponse, None]
]


class Kserve:
    """One method per call of GRPCInferenceService."""

    def __init__(self, generative: Generative, control: Control, health: Health) -> None:
        self._generative = generative
        self._control = control
        self._repository = control.repository
        self._health = health

    async def live(self, message: pb.ServerLiveRequest, call: Call) -> pb.ServerLiveResponse:
        """ServerLive."""
        return pb.ServerLiveResponse(live=self._health.status(LIVENESS) == Status.SERVING)

    async def ready(self, message: pb.ServerReadyRequest, call: Call) -> pb.ServerReadyResponse:
        """ServerReady."""
        return pb.ServerReadyResponse(ready=self._health.ready)

    async def model_ready(self, message: pb.ModelReadyRequest, call: Call) -> pb.ModelReadyResponse:
        """ModelReady; a model that nobody has is not ready."""
        version = version_of(message.version, "version")
        if self._health.status(f"{MODEL}{message.name}") != Status.SERVING:
            return pb.ModelReadyResponse(ready=False)
        try:
            self._repository.ready(message.name, version)
        except ServingError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def server(self, message: pb.ServerMetadataRequest, call: Call) -> pb.ServerMetadataResponse:
        """ServerMetadata."""
        return pb.ServerMetadataResponse(name="pxserve", version=server_version(), extensions=EXTENSIONS)

    async def metadata(self, message: pb.ModelMetadataRequest, call: Call) -> pb.ModelMetadataResponse:
        """ModelMetadata."""
        loaded = self._repository.ready(message.name, version_of(message.version, "version"))
        call.model = loaded.key.name
        return infer_catalog.metadata_of(loaded, self._repository.versions(message.name))

    async def config(self, message: pb.ModelConfigRequest, call: Call) -> pb.ModelConfigResponse:
        """ModelConfig."""
        loaded = self._repository.ready(message.name, version_of(message.version, "version"))
        call.model = loaded.key.name
        most = self._generative.limits.rows_of(loaded)
        return pb.ModelConfigResponse(config=infer_catalog.config_of(loaded, most))

    async def infer(self, message: pb.ModelInferRequest, call: Call) -> pb.ModelInferResponse:
        """ModelInfer: the same resolution, admission and engine as the typed call of that operation."""
        inference = Inference.of(message)
        check_wanted(message, inference.operation, inference.parameters)
        if inference.timeout_s is not None:
            call.deadline_s = min(call.deadline_s, inference.timeout_s)
        if message.id:
            call.rename(message.id)
        if not message.model_name:
            raise invalid("model_name", "is required")
        with self._repository.lease(message.model_name, inference.version) as loaded:
            prepared = await understand(
                inference.asked,
                inference.encoding,
                call,
                loaded,
                self._generative.limits,
                whole_reply=True,
            )
            call.operation = inference.operation.value
            response = await self._answer(prepared, inference)
        response.id = message.id
        return response

    async def _answer(self, prepared: Prepared, inference: Inference) -> pb.ModelInferResponse:
        request = prepared.request
        if inference.validate_only:
            frame = await self._generative.predicted_frame(prepared)
            return framed(frame.provenance, request.parameters)
        finished = await self._generative.ask(prepared)
        frame = prepared.frame(finished.result, finished.usage)
        values = replies.resolved(finished.result, request)
        respond = partial(response_of, finished.result, frame.writer, frame.provenance, values)
        elements = request.rows * request.completions * prepared.loaded.spec.data.elements
        response = respond() if elements <= INLINE_ELEMENTS else await asyncio.to_thread(respond)
        return chosen(response, [output.name for output in inference.message.outputs])

    def streamed(self, rpc: Rpc) -> Conversation:
        """ModelStreamInfer; each of its requests is counted, by ``rpc``, as if it had come alone."""

        def answer(
            requests: AsyncIterator[pb.ModelInferRequest], call: Call
        ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
            return together(requests, partial(self._one, rpc, call))

        return answer

    async def _one(self, rpc: Rpc, call: Call, request: pb.ModelInferRequest) -> pb.ModelStreamInferResponse:
        """The answer, or why there is none; a request that fails does not end its stream."""
        try:
            response = await rpc.within(call, "model_infer", partial(self.infer, request))
        except ServingError as error:
            name = f"[{status.code_of(error).name}] {status.message_of(error)}"
            return pb.ModelStreamInferResponse(
                error_message=name, infer_response=pb.ModelInferResponse(id=request.id)
            )
        return pb.ModelStreamInferResponse(infer_response=response)

    async def index(self, message: pb.RepositoryIndexRequest, call: Call) -> pb.RepositoryIndexResponse:
        """RepositoryIndex."""
        _check_repository(message.repository_name)
        return infer_catalog.index_of(self._repository.versions(), message.ready)

    async def load(
        self, message: pb.RepositoryModelLoadRequest, call: Call
    ) -> pb.RepositoryModelLoadResponse:
        """RepositoryModelLoad: the latest version; fails where that does not become READY."""
        _check_repository(message.repository_name)
        for name in message.parameters:
            raise invalid(f"parameters.{name:.60}", "packages are loaded as they are")
        loaded = await self._control.load(message.model_name, None, wait=True)
        call.model = loaded.key.name
        self._repository.ready(loaded.key.name, loaded.key.version)
        return pb.RepositoryModelLoadResponse()

    async def unload(
        self, message: pb.RepositoryModelUnloadRequest, call: Call
    ) -> pb.RepositoryModelUnloadResponse:
        """RepositoryModelUnload: every version, once its requests have ended."""
        _check_repository(message.repository_name)
        for name in set(message.parameters) - {"unload_dependents"}:
            raise invalid(f"parameters.{name:.60}", "is none of this call's")
        unloaded = await self._control.unload(message.model_name, None)
        call.model = unloaded.key.name
        return pb.RepositoryModelUnloadResponse()


def kserve_handlers(rpc: Rpc, quiet: Rpc, kserve: Kserve, *, administers: bool) -> dict[str, Method]:
    """One handler per method; ``quiet`` takes the probes, and streams, whose requests ``rpc`` takes."""
    probe, asking, admin = quiet.behind(OPEN), rpc.behind(INFER), rpc.behind(ADMIN)
    load = admin.unary("load_model", pb.RepositoryModelLoadRequest, kserve.load)
    unload = admin.unary("unload_model", pb.RepositoryModelUnloadRequest, kserve.unload)
    refused = rpc.refusing("administration", elsewhere)
    return {
        "ServerLive": probe.unary("health", pb.ServerLiveRequest, kserve.live),
        "ServerReady": probe.unary("health", pb.ServerReadyRequest, kserve.ready),
        "ModelReady": probe.unary("health", pb.ModelReadyRequest, kserve.model_ready),
        "ServerMetadata": asking.unary("server_metadata", pb.ServerMetadataRequest, kserve.server),
        "ModelMetadata": asking.unary("get_model", pb.ModelMetadataRequest, kserve.metadata),
        "ModelConfig": asking.unary("get_model", pb.ModelConfigRequest, kserve.config),
        "ModelInfer": asking.unary("model_infer", pb.ModelInferRequest, kserve.infer),
        "ModelStreamInfer": quiet.behind(INFER).conversation(
            "model_stream_infer", pb.ModelInferRequest, kserve.streamed(asking)
        ),
        "RepositoryIndex": asking.unary("list_models", pb.RepositoryIndexRequest, kserve.index),
        "RepositoryModelLoad": load if administers else refused,
        "RepositoryModelUnload": unload if administers else refused,
    }


def _check_repository(name: str) -> None:
    if name:
        raise invalid("repository_name", "this server has one repository, without a name")
