"""The gRPC server: options, handlers of raw bytes, reflection, transport security."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

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
from serving.api.convert.requests import QUESTIONS
from serving.api.generative import Generative
from serving.api.health import Health
from serving.api.models import Models
from serving.api.rpc import Handler, Rpc
from serving.config import Config, ConfigError

GENERATIVE = generative_service_pb2.DESCRIPTOR.services_by_name["GenerativeService"].full_name
MODELS = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
SERVICES = frozenset({GENERATIVE, MODELS})

Handlers = Mapping[str, Mapping[str, Handler]]


def generative_handlers(rpc: Rpc, generative: Generative) -> dict[str, Handler]:
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


def model_handlers(rpc: Rpc, models: Models) -> dict[str, Handler]:
    """One handler per method of ModelService."""
    pb = model_service_pb2
    return {
        "ListModels": rpc.unary("list_models", pb.ListModelsRequest, models.list_models),
        "GetModel": rpc.unary("get_model", pb.GetModelRequest, models.get_model),
        "LoadModel": rpc.unary("load_model", pb.LoadModelRequest, models.load_model),
        "UnloadModel": rpc.unary("unload_model", pb.UnloadModelRequest, models.unload_model),
        "SelfTest": rpc.unary("self_test", pb.SelfTestRequest, models.self_test),
    }


def health_handlers(rpc: Rpc, health: Health) -> dict[str, Handler]:
    """Check and Watch."""
    return {
        "Check": rpc.unary("health", health_pb2.HealthCheckRequest, health.check),
        "Watch": rpc.stream("health", health_pb2.HealthCheckRequest, health.watch),
    }


def grpc_server(config: Config, handlers: Handlers) -> tuple[grpc.aio.Server, int]:
    """A server that is bound but not started, and its port; ConfigError where it cannot listen."""
    server = grpc.aio.server(options=_options(config))
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(service, dict(methods))
            for service, methods in handlers.items()
        )
    )
    return server, _bind(server, config)


def _bind(server: grpc.aio.Server, config: Config) -> int:
    try:
        credentials = _credentials(config)
        if credentials is None:
            return server.add_insecure_port(config.listen)
        return server.add_secure_port(config.listen, credentials)
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"listen: cannot serve on {config.listen}: {error}") from error


def _credentials(config: Config) -> grpc.ServerCredentials | None:
    if not config.tls_cert:
        return None
    authorities = Path(config.tls_client_ca).read_bytes() if config.tls_client_ca else None
    pair = (Path(config.tls_key).read_bytes(), Path(config.tls_cert).read_bytes())
    return grpc.ssl_server_credentials([pair], authorities, require_client_auth=authorities is not None)


def _options(config: Config) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),  # replies are limited when they are planned, not when done
        ("grpc.so_reuseport", 0),  # a second server on this port must fail, not share it
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
