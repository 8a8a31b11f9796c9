"""The addresses of a server: questions at one, administration at another where it has its own."""

from __future__ import annotations

import asyncio
import ipaddress
import logging

import grpc.aio

from serving.access.access import Access
from serving.access.principal import EITHER, OPEN
from serving.access.tokens import TokensError
from serving.api import kserve, reflect
from serving.api.certificates import Certificates
from serving.api.door import Door
from serving.api.gate import Gate
from serving.api.generative import Generative
from serving.api.health import Health
from serving.api.kserve import Kserve
from serving.api.models import Models
from serving.api.pace import Pace
from serving.api.rpc import Method, Rpc
from serving.api.server import (
    GENERATIVE,
    HEALTH,
    MODELS,
    generative_handlers,
    grpc_server,
    health_handlers,
    model_handlers,
)
from serving.config import Config, ConfigError
from serving.telemetry.calls import CallMetrics
from serving.telemetry.cores import cpu_cores
from serving.telemetry.tracing import Tracing

log = logging.getLogger("pxserve")

REFRESH_S = 1.0  # how often the files of tokens and certificates are looked at


class Listeners:
    """Bound when made (ConfigError where that fails), answering from ``start`` to ``stop``."""

    def __init__(
        self,
        config: Config,
        calls: CallMetrics,
        tracing: Tracing,
        gate: Gate,
        generative: Generative,
        models: Models,
        inference: Kserve,
        health: Health,
    ) -> None:
        self._config = config
        self._generative, self._models, self._kserve, self._health = generative, models, inference, health
        self._access = _access(config)
        self._certificates = Certificates(config) if config.tls_cert else None
        watching = Gate(config.max_open_calls)  # apart, so that probes are answered while a server drains
        door = Door(self._access, gate, pace=Pace.of(config.device, cpu_cores()))
        self._rpc = Rpc(calls, door, config.default_deadline_s, tracing=tracing)
        self._quiet = Rpc(calls, Door(self._access, watching), config.default_deadline_s, quiet=True)
        self._servers: list[grpc.aio.Server] = []
        services = self._services(questions=True, administers=not config.admin_listen)
        self.port = self._bind(config.listen, services)
        self.admin_port = self.port
        if config.admin_listen:
            services = self._services(questions=False, administers=True)
            self.admin_port = self._bind(config.admin_listen, services)

    async def start(self) -> None:
        """Begin to answer."""
        for server in self._servers:
            await server.start()
        self._warn()

    async def stop(self, grace_s: float) -> None:
        """Let replies that are on their way arrive, then close."""
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))

    async def keep_fresh(self) -> None:
        """Read tokens and certificates again when their files change; runs until it is cancelled."""
        while True:
            await asyncio.sleep(REFRESH_S)
            await asyncio.to_thread(self._refresh)

    def _refresh(self) -> None:
        self._access.refresh()
        if self._certificates is not None:
            self._certificates.refresh()

    def _bind(self, address: str, services: dict[str, dict[str, Method]]) -> int:
        server, port = grpc_server(self._config, address, services, self._certificates)
        self._servers.append(server)
        return port

    def _services(self, *, questions: bool, administers: bool) -> dict[str, dict[str, Method]]:
        open_to_all = self._quiet.behind(OPEN)
        services = {
            MODELS: model_handlers(self._rpc, self._models, administers=administers),
            HEALTH: health_handlers(open_to_all, self._health),
        }
        if questions:
            services[GENERATIVE] = generative_handlers(self._rpc, self._generative)
            services[kserve.SERVICE] = kserve.kserve_handlers(
                self._rpc, self._quiet, self._kserve, administers=administers
            )
        if not self._config.no_reflection:
            asking = self._quiet.behind(EITHER)
            services[reflect.SERVICE] = reflect.reflection_handlers(asking, tuple(services))
        return services

    def _warn(self) -> None:
        """What an operator may not have meant."""
        for address in filter(None, (self._config.listen, self._config.admin_listen)):
            if _is_loopback(address):
                continue
            if self._certificates is None and self._access.guarded:
                log.warning("tokens travel unencrypted: no --tls-cert", extra={"address": address})
            if not self._access.guarded and not self._config.tls_client_ca:
                log.warning("everyone may ask and administer: no --tokens", extra={"address": address})


def _access(config: Config) -> Access:
    try:
        return Access(config.tokens)
    except TokensError as error:
        raise ConfigError(f"tokens: {error}") from error


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
