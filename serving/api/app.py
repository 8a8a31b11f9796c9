"""The process that serves: wires engine, repository and gRPC together, and takes them down in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from pathlib import Path
from typing import Protocol

from serving.api import reflect
from serving.api.convert.provenance import server_version
from serving.api.generative import Generative
from serving.api.health import Health
from serving.api.models import Models
from serving.api.ports import Engine
from serving.api.prepared import Limits
from serving.api.rpc import Gate, Handler, Rpc
from serving.api.selftest import SelfTest
from serving.api.server import (
    GENERATIVE,
    HEALTH,
    MODELS,
    SERVICES,
    generative_handlers,
    grpc_server,
    health_handlers,
    model_handlers,
)
from serving.config import Config, ConfigError
from serving.errors import Unavailable
from serving.repository.repository import ReadPackage, Repository, State, Version
from serving.telemetry.metrics import (
    BUILD_INFO,
    LOAD_SECONDS,
    MODEL_MEMORY_BYTES,
    MODELS_READY,
    WARMUP_SECONDS,
    Metrics,
)

log = logging.getLogger("pxserve")

WATCH_S = 0.5  # how often the engine is looked at
_LAST_WORDS_S = 1.0  # for replies that are on their way when everything has ended


class StoppableEngine(Engine, Protocol):
    """An engine that this process owns."""

    def start(self) -> None:
        """Begin to tick."""

    def stop(self, grace_s: float = 0.0) -> None:
        """Finish, or fail, what is in flight; blocking."""


class App:
    """One serving process. ``start``, then ``run`` until ``stop`` is set, then ``shut_down``."""

    def __init__(self, config: Config, engine: StoppableEngine, metrics: Metrics, read: ReadPackage) -> None:
        self.metrics_port = 0
        self.repository = Repository(Path(config.models), engine, read, self._changed)
        self.stop = asyncio.Event()
        self._config = config
        self._engine = engine
        self._metrics = metrics
        self._gate = Gate()
        self._health = Health(self.repository, lambda: engine.alive, SERVICES, config.require_models)
        self._server, self.port = grpc_server(config, self._handlers())
        self._metrics.gauge(BUILD_INFO, server_version(), config.device).set(1)

    async def start(self) -> None:
        """Open the port (NOT_SERVING), load the models, then say SERVING."""
        self._serve_metrics()
        await self._server.start()
        self._engine.start()
        await self.repository.load_all()
        self._health.loaded()
        self._say_serving()

    async def run(self) -> int:
        """Serve until ``stop`` is set (0) or the engine is lost (1)."""
        starting = asyncio.ensure_future(self.start())
        try:
            while not self.stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stop.wait(), WATCH_S)
                if starting.done():
                    starting.result()
                    if not self._engine.alive:
                        log.critical("the engine is lost; ending, so that a supervisor starts afresh")
                        return 1
            return 0
        finally:
            starting.cancel()
            await self.shut_down()

    async def shut_down(self) -> None:
        """NOT_SERVING, refuse new calls, let those in flight finish within ``drain_s``, then close."""
        log.info("draining", extra={"at_most_seconds": self._config.drain_s})
        self._health.drain()
        self._gate.close(Unavailable("the server is draining; ask another replica", reason="DRAINING"))
        finished = self._engine.alive and await self._gate.idle(self._config.drain_s)
        await asyncio.to_thread(self._engine.stop, 0.0)
        await self._server.stop(_LAST_WORDS_S)
        await self.repository.close()
        log.info("stopped", extra={"all_finished": finished})

    def _handlers(self) -> dict[str, dict[str, Handler]]:
        config, metrics = self._config, self._metrics
        limits = Limits(config.max_rows_per_request, config.max_message_bytes)
        rpc = Rpc(metrics, self._gate, config.default_deadline_s)
        quiet = Rpc(metrics, Gate(), config.default_deadline_s, quiet=True)
        generative = Generative(self.repository, self._engine, metrics, limits)
        models = Models(self.repository, SelfTest(self._engine), limits)
        handlers = {
            GENERATIVE: generative_handlers(rpc, generative),
            MODELS: model_handlers(rpc, models),
            HEALTH: health_handlers(quiet, self._health),
        }
        if not config.no_reflection:
            handlers[reflect.SERVICE] = reflect.reflection_handlers(quiet, tuple(handlers))
        return handlers

    def _serve_metrics(self) -> None:
        if not self._config.metrics:
            return
        host, _, port = self._config.metrics.rpartition(":")
        try:
            http, _ = self._metrics.serve(host, int(port))
            self.metrics_port = http.server_port
        except OSError as error:
            raise ConfigError(f"metrics: cannot serve on {self._config.metrics}: {error}") from error

    def _changed(self) -> None:
        versions = self.repository.versions()
        ready = [version for version in versions if version.state is State.READY]
        self._metrics.gauge(MODELS_READY).set(len(ready))
        for version in ready:
            self._describe(version)
        self._health.changed()

    def _describe(self, version: Version) -> None:
        if version.loaded is not None:
            name = version.key.name
            self._metrics.gauge(LOAD_SECONDS, name).set(version.loaded.load_seconds)
            self._metrics.gauge(WARMUP_SECONDS, name).set(version.loaded.warmup_seconds)
            self._metrics.gauge(MODEL_MEMORY_BYTES, name).set(version.loaded.memory_bytes)

    def _say_serving(self) -> None:
        versions = self.repository.versions()
        ready = [f"{v.key.name}/{v.key.version}" for v in versions if v.state is State.READY]
        failed = [f"{v.key.name}/{v.key.version}" for v in versions if v.state is State.FAILED]
        host = self._config.listen.rpartition(":")[0]
        facts = {"address": f"{host}:{self.port}", "models": ready, "failed": failed}
        log.info("SERVING" if self._health.ready else "NOT_SERVING", extra=facts)


async def serve(config: Config, engine: StoppableEngine, metrics: Metrics, read: ReadPackage) -> int:
    """Serve until SIGTERM or SIGINT, drain, and return the process's exit status."""
    app = App(config, engine, metrics, read)
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, app.stop.set)
    return await app.run()
