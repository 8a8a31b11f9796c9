"""ModelService: what this process has, and its loading and unloading."""

from __future__ import annotations

from pxserve.v1 import model_pb2, model_service_pb2
from serving.api.convert.catalog import model_of
from serving.api.prepared import Limits, lease
from serving.api.rpc import Call
from serving.api.selftest import SelfTest
from serving.errors import invalid
from serving.repository.control import Control
from serving.repository.version import Version

PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000

Naming = (
    model_service_pb2.GetModelRequest
    | model_service_pb2.LoadModelRequest
    | model_service_pb2.UnloadModelRequest
)


class Models:
    """Lists, describes, loads, unloads and checks models."""

    def __init__(self, control: Control, self_test: SelfTest, limits: Limits) -> None:
        self._control = control
        self._repository = control.repository
        self._self_test = self_test
        self._limits = limits

    async def list_models(
        self, message: model_service_pb2.ListModelsRequest, call: Call
    ) -> model_service_pb2.ListModelsResponse:
        """A page of versions in the order of names; the token is the last one of the page before."""
        if not 0 <= message.page_size <= MAX_PAGE_SIZE:
            raise invalid("page_size", f"{message.page_size} is outside 0..{MAX_PAGE_SIZE}")
        after = _token(message.page_token)
        left = [v for v in self._repository.versions() if (v.key.name, v.key.version) > after]
        size = message.page_size or PAGE_SIZE
        page = left[:size]
        token = f"{page[-1].key.name}/{page[-1].key.version}" if len(left) > size else ""
        return model_service_pb2.ListModelsResponse(
            models=[self._model(version, full=False) for version in page], next_page_token=token
        )

    async def get_model(
        self, message: model_service_pb2.GetModelRequest, call: Call
    ) -> model_service_pb2.GetModelResponse:
        """One version with its capabilities."""
        found = self._repository.find(*_named(message))
        call.model = found.key.name
        return model_service_pb2.GetModelResponse(model=self._model(found, full=True))

    async def load_model(
        self, message: model_service_pb2.LoadModelRequest, call: Call
    ) -> model_service_pb2.LoadModelResponse:
        """Begin to load, and wait for it where asked to."""
        loaded = await self._control.load(*_named(message), wait=message.wait)
        call.model = loaded.key.name
        return model_service_pb2.LoadModelResponse(model=self._model(loaded, full=True))

    async def unload_model(
        self, message: model_service_pb2.UnloadModelRequest, call: Call
    ) -> model_service_pb2.UnloadModelResponse:
        """Unload, once requests in flight have ended."""
        unloaded = await self._control.unload(*_named(message))
        call.model = unloaded.key.name
        return model_service_pb2.UnloadModelResponse(model=self._model(unloaded, full=True))

    async def self_test(
        self, message: model_service_pb2.SelfTestRequest, call: Call
    ) -> model_service_pb2.SelfTestResponse:
        """Run checks against the model as it is served."""
        seed = message.seed if message.HasField("seed") else None
        with lease(message, self._repository) as loaded:
            call.model = loaded.key.name
            return await self._self_test.run(loaded, tuple(message.checks), seed, call)

    def _model(self, version: Version, *, full: bool) -> model_pb2.Model:
        default = self._repository.default(version.key.name)
        max_rows = self._limits.max_rows
        return model_of(
            version,
            is_default=default is not None and default.key == version.key,
            max_rows=self._limits.rows_of(version.loaded) if version.loaded is not None else max_rows,
            max_message_bytes=self._limits.max_message_bytes,
            full=full,
        )


def _named(message: Naming) -> tuple[str, int | None]:
    if not message.model:
        raise invalid("model", "is required")
    return message.model, message.version if message.HasField("version") else None


def _token(token: str) -> tuple[str, int]:
    if not token:
        return "", 0
    name, slash, version = token.rpartition("/")
    if not (slash and version.isascii() and version.isdigit() and len(version) <= 18):
        raise invalid("page_token", "is none that ListModels returned")
    return name, int(version)
