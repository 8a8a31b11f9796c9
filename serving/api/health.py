"""grpc.health.v1: this process (""), ``liveness``, each service, and each model as ``model/NAME``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from grpc_health.v1 import health_pb2

from serving.api.rpc import Call
from serving.errors import NotFound
from serving.repository.repository import Repository
from serving.repository.version import State

LIVENESS = "liveness"
MODEL = "model/"

Status = health_pb2.HealthCheckResponse.ServingStatus


class Health:
    """Answers from what is true now; watchers are told when it changes."""

    def __init__(
        self,
        repository: Repository,
        alive: Callable[[], bool],
        services: frozenset[str],
        require_models: bool,
    ) -> None:
        self._repository = repository
        self._alive = alive
        self._services = services
        self._require_models = require_models
        self._loaded = False
        self._draining = False
        self._change = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether this process accepts work."""
        if self._draining or not self._loaded or not self._alive():
            return False
        return not self._require_models or self._all_answer()

    def _all_answer(self) -> bool:
        """Whether there are models, and each that failed to load has a version that answers."""
        versions = self._repository.versions()
        failed = {version.key.name for version in versions if version.state is State.FAILED}
        return bool(versions) and all(self._repository.default(name) is not None for name in failed)

    def loaded(self) -> None:
        """The models of the start are READY or FAILED: accept work."""
        self._loaded = True
        self.changed()

    def drain(self) -> None:
        """Accept no more work."""
        self._draining = True
        self.changed()

    def changed(self) -> None:
        """Something may have changed: wake the watchers."""
        self._change.set()
        self._change = asyncio.Event()

    def status(self, service: str) -> int | None:
        """Serving status of a service; None where nobody has that name."""
        if service == "" or service in self._services:
            return _status(self.ready)
        if service == LIVENESS:
            return _status(self._alive())
        name = service.removeprefix(MODEL)
        if name == service or not any(version.key.name == name for version in self._repository.versions()):
            return None
        return _status(self._alive() and not self._draining and self._repository.default(name) is not None)

    async def check(
        self, message: health_pb2.HealthCheckRequest, call: Call
    ) -> health_pb2.HealthCheckResponse:
        """The status now; NOT_FOUND for a name that nobody has."""
        status = self.status(message.service)
        if status is None:
            raise NotFound(f"no service {message.service!r}", reason="SERVICE_NOT_FOUND")
        return health_pb2.HealthCheckResponse(status=status)

    async def watch(
        self, message: health_pb2.HealthCheckRequest, call: Call
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        """The status now and whenever it changes; SERVICE_UNKNOWN for a name that nobody has yet."""
        told = -1
        while True:
            change = self._change
            status = self.status(message.service)
            now = Status.SERVICE_UNKNOWN if status is None else status
            if now != told:
                yield health_pb2.HealthCheckResponse(status=now)
                told = now
            await change.wait()


def _status(serving: bool) -> int:
    return int(Status.SERVING if serving else Status.NOT_SERVING)
