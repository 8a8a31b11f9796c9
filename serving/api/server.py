"""The gRPC server: options, handlers of raw bytes, reflection, transport security."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from pxserve.v1 import (
    generative_service_pb2,
    inpaint_pb2,
    likelihood_pb2,
    model_service_pb2,
    sample_pb2,
)
from serving.access.principal import ADMIN, EITHER
from serving.api.certificates import Certificates
from serving.api.convert.requests import QUESTIONS
from serving.api.generative import Generative
from serving.api.health import Health
from serving.api.models import Models
from serving.api.rpc import Handler, Method, Rpc
from serving.config import Config, ConfigError
from serving.errors import Unimplemented

GENERATIVE = generative_service_pb2.DESCRIPTOR.services_by_name["GenerativeService"].full_name
MODELS = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
SERVICES = frozenset({GENERATIVE, MODELS})

KEEPALIVE_ANSWER_S = 20.0  # within which a client that is there says so

Services = Mapping[str, Mapping[str, Method]]  # by full name of the service, then by method


def generative_handlers(rpc: Rpc, generative: Generative) -> dict[str, Method]:
    """One handler per method of GenerativeService."""
    unary = {name: rpc.unary(operation, kind, generative.answer) for name, operation, kind in QUESTIONS}
    return unary | {
        "StreamSample": rpc.stream("stream_sample", sample_pb2.StreamSampleRequest, generative.stream_sample),
        "StreamInpaint": rpc.stream(
            "stream_inpaint", inpaint_pb2.StreamInpaintRequest, generative.stream_inpaint
        ),
        "StreamLikelihood": rpc.stream(
            "stream_likelihood", likelihood_pb2.StreamLikelihoodRequest, generative.stream_likelihood
        ),
    }


def model_handlers(rpc: Rpc, models: Models, *, administers: bool) -> dict[str, Method]:
    """One handler per method of ModelService; where it does not administer, some of them say so."""
    pb = model_service_pb2
    either, admin = rpc.behind(EITHER), rpc.behind(ADMIN)
    shown = {
        "ListModels": either.unary("list_models", pb.ListModelsRequest, models.list_models),
        "GetModel": either.unary("get_model", pb.GetModelRequest, models.get_model),
    }
    administering = {
        "LoadModel": admin.unary("load_model", pb.LoadModelRequest, models.load_model),
        "UnloadModel": admin.unary("unload_model", pb.UnloadModelRequest, models.unload_model),
        "SelfTest": admin.unary("self_test", pb.SelfTestRequest, models.self_test),
    }
    if administers:
        return shown | administering
    return shown | {name: rpc.refusing("administration", elsewhere) for name in administering}


def elsewhere() -> Unimplemented:
    """The refusal of administrators' calls at an address that is not theirs."""
    return Unimplemented("this call is answered at the server's --admin-listen address alone")


def health_handlers(rpc: Rpc, health: Health) -> dict[str, Method]:
    """Check and Watch."""
    return {
        "Check": rpc.unary("health", health_pb2.HealthCheckRequest, health.check),
        "Watch": rpc.stream("health", health_pb2.HealthCheckRequest, health.watch),
    }


class _Methods(grpc.GenericRpcHandler):
    """Finds the method of a call and lets it look at the metadata, before gRPC reads the message."""

    def __init__(self, services: Services) -> None:
        self._methods = {
            f"/{service}/{name}": method
            for service, methods in services.items()
            for name, method in methods.items()
        }

    def service(self, details: grpc.HandlerCallDetails) -> Handler | None:
        method = self._methods.get(details.method)
        return None if method is None else method(details)


def grpc_server(
    config: Config, address: str, services: Services, certificates: Certificates | None
) -> tuple[grpc.aio.Server, int]:
    """A server that is bound but not started, and its port; ConfigError where it cannot listen."""
    server = grpc.aio.server(options=_options(config))
    server.add_generic_rpc_handlers((_Methods(services),))
    try:
        if certificates is None:
            return server, server.add_insecure_port(address)
        return server, server.add_secure_port(address, certificates.credentials())
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"listen: cannot serve on {address}: {error}") from error


def _options(config: Config) -> list[tuple[str, int]]:
    limits = [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),  # replies are limited when they are planned, not when done
        ("grpc.max_metadata_size", config.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", config.max_metadata_bytes),  # else refused by chance in between
        ("grpc.max_concurrent_streams", config.max_streams_per_connection),
        ("grpc.so_reuseport", 0),  # a second server on this port must fail, not share it
    ]
    if not config.allow_compression:
        limits.append(("grpc.compression_enabled_algorithms_bitset", 1))  # identity alone
    if config.max_connection_age_s:
        limits.append(("grpc.max_connection_age_ms", round(config.max_connection_age_s * 1000)))
    return [*limits, *_keepalive(config)]


def _keepalive(config: Config) -> list[tuple[str, int]]:
    answer_ms = int(1e3 * min(KEEPALIVE_ANSWER_S, config.keepalive_s))
    return [
        # A peer that vanished without a word is found out, and its rows are freed.
        ("grpc.keepalive_time_ms", int(1e3 * config.keepalive_s)),
        ("grpc.keepalive_timeout_ms", answer_ms),
        ("grpc.http2.ping_timeout_ms", answer_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # Clients may ping every 10 s, also while they ask nothing; those that ping faster are cut off.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
    ]
