"""The process that serves: wires engine, repository and gRPC together, and takes them down in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Protocol, TypeVar, cast

from serving.api.convert.provenance import server_version
from serving.api.gate import Gate
from serving.api.generative import Generative
from serving.api.health import Health
from serving.api.kserve import Kserve
from serving.api.listeners import Listeners
from serving.api.models import Models
from serving.api.ports import Engine
from serving.api.prepared import Limits
from serving.api.pulse import pulse
from serving.api.selftest import SelfTest
from serving.api.server import SERVICES
from serving.config import Config, ConfigError
from serving.errors import Unavailable
from serving.repository.control import Control, Mode
from serving.repository.policy import Policy
from serving.repository.repository import Repository
from serving.repository.transitions import ReadPackage
from serving.repository.version import State
from serving.telemetry.calls import CallMetrics
from serving.telemetry.cores import cpu_cores
from serving.telemetry.metrics import Metrics
from serving.telemetry.model_metrics import ModelMetrics
from serving.telemetry.table import BUILD_INFO, CPU_CORES, QUEUE_LIMIT_ROWS
from serving.telemetry.tracing import NoTracing, Tracing

log = logging.getLogger("pxserve")

Done = TypeVar("Done")

CUT_OFF = 1  # exit status after a second signal
WATCH_S = 0.5  # how often the engine is looked at
_HURRY_S = 0.5
_LAST_WORDS_S = 1.0  # for replies that are on their way when everything has ended


class StoppableEngine(Engine, Protocol):
    """An engine that this process owns."""

    def start(self) -> None:
        """Begin to tick."""

    def stop(self, grace_s: float = 0.0) -> None:
        """Finish, or fail, what is in flight; blocking."""


class App:
    """One serving process. ``start``, then ``run`` until ``stop`` is set, then ``shut_down``."""

    def __init__(
        self,
        config: Config,
        engine: StoppableEngine,
        metrics: Metrics,
        read: ReadPackage,
        tracing: Tracing | None = None,
    ) -> None:
        self.metrics_port = 0
        policy = Policy.parse(config.version_policy)
        self.repository = Repository(Path(config.models), engine, read, self._changed, policy)
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()  # what is in flight is not waited for any more
        self._config = config
        self._engine = engine
        self._metrics = metrics
        self._model_metrics = ModelMetrics(metrics)
        self._calls = CallMetrics(metrics)
        self._pulse: asyncio.Future[None] | None = None
        self._tracing = tracing or NoTracing()
        self._gate = Gate(config.max_open_calls)
        self._control = _control(config, self.repository)
        self._background: list[asyncio.Future[None]] = []
        self._health = Health(self.repository, lambda: engine.alive, SERVICES, config.require_models)
        self._listeners = self._made_listeners()
        self.port, self.admin_port = self._listeners.port, self._listeners.admin_port
        self._describe()

    async def start(self) -> None:
        """Open the port (NOT_SERVING), load the models, then say SERVING."""
        self._serve_metrics()
        health, engine = self._health, self._engine
        beat = pulse(self._metrics, self._calls, lambda: health.ready, lambda: engine.alive)
        self._pulse = asyncio.ensure_future(beat)
        await self._listeners.start()
        self._engine.start()
        await self._control.start()
        self._health.loaded()
        self._say_serving()
        self._background += [
            asyncio.ensure_future(self._control.run()),
            asyncio.ensure_future(self._listeners.keep_fresh()),
        ]

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
        """NOT_SERVING, refuse new calls, let those in flight finish within ``drain_s``, then close.

        Once ``hurry`` is set, nothing is waited for that takes longer than a moment.
        """
        log.info("draining", extra={"at_most_seconds": self._config.drain_s})
        for task in self._background:
            task.cancel()
        self._health.drain()
        self._gate.close(Unavailable("the server is draining; ask another replica", reason="DRAINING"))
        finished = self._engine.alive and await self._unless_hurried(self._gate.idle(self._config.drain_s))
        await self._unless_hurried(asyncio.to_thread(self._engine.stop, 0.0))
        await self._listeners.stop(_LAST_WORDS_S)
        if self._pulse is not None:
            self._pulse.cancel()
        await self._unless_hurried(self.repository.close())
        await self._unless_hurried(asyncio.to_thread(self._tracing.close))
        log.info("stopped", extra={"all_finished": bool(finished)})

    async def _unless_hurried(self, work: Coroutine[None, None, Done]) -> Done | None:
        """Wait for the work, but only a moment longer once ``hurry`` is set; None where it did not end."""
        working, hurried = asyncio.ensure_future(work), asyncio.ensure_future(self.hurry.wait())
        await asyncio.wait({working, hurried}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        await asyncio.wait({working}, timeout=_HURRY_S)
        return working.result() if working.done() else None

    def _made_listeners(self) -> Listeners:
        config, calls = self._config, self._calls
        limits = Limits(config.max_rows_per_request, config.max_message_bytes)
        generative = Generative(self.repository, self._engine, calls, limits)
        models = Models(self._control, SelfTest(self._engine), limits)
        kserve = Kserve(generative, self._control, self._health)
        return Listeners(config, calls, self._tracing, self._gate, generative, models, kserve, self._health)

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
        self._model_metrics.show(self.repository.versions())
        self._health.changed()

    def _describe(self) -> None:
        """What this process is; it does not change."""
        config = self._config
        build = (server_version(), config.device, config.engine, platform.python_version())
        self._metrics.gauge(BUILD_INFO, *build).set(1)
        self._metrics.gauge(CPU_CORES).set(cpu_cores())
        self._metrics.gauge(QUEUE_LIMIT_ROWS).set(config.queue_rows)

    def _say_serving(self) -> None:
        versions = self.repository.versions()
        ready = [f"{v.key.name}/{v.key.version}" for v in versions if v.state is State.READY]
        failed = [f"{v.key.name}/{v.key.version}" for v in versions if v.state is State.FAILED]
        host = self._config.listen.rpartition(":")[0]
        facts = {"address": f"{host}:{self.port}", "models": ready, "failed": failed}
        if self.admin_port != self.port:
            facts["admin"] = f"{self._config.admin_listen.rpartition(':')[0]}:{self.admin_port}"
        log.info("SERVING" if self._health.ready else "NOT_SERVING", extra=facts)


async def serve(
    config: Config, engine: StoppableEngine, metrics: Metrics, read: ReadPackage, tracing: Tracing
) -> int:
    """Serve until SIGTERM or SIGINT, drain, and return the process's exit status.

    A second signal ends the process at once, whatever its threads are doing.
    """
    app = App(config, engine, metrics, read, tracing)
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, _signalled, app)
    status = await app.run()
    if app.hurry.is_set():
        log.warning("ended at once, by a second signal")
        logging.shutdown()
        os._exit(CUT_OFF)
    return status


def _signalled(app: App) -> None:
    (app.hurry if app.stop.is_set() else app.stop).set()


def _control(config: Config, repository: Repository) -> Control:
    names = None if config.load_models == "*" else frozenset(filter(None, config.load_models.split(",")))
    return Control(repository, cast("Mode", config.repository_mode), names, config.poll_s)
