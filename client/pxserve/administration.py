"""What the server has, as scripts; one method of the clients for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from pxserve.inputs import delivery, fill
from pxserve.mirror import mirror
from pxserve.models import Model, SelfTest
from pxserve.options import CallOptions
from pxserve.script import (
    GET_MODEL,
    LIST_MODELS,
    LOAD_MODEL,
    SELF_TEST,
    UNLOAD_MODEL,
    Delivery,
    Script,
    ask,
)
from pxserve.v1 import model_service_pb2


def list_models(
    *, timeout_s: float | None = None, request_id: str | None = None
) -> Script[tuple[Model, ...]]:
    """All models of the repository by name and version, without their capabilities."""
    models: list[Model] = []
    request = model_service_pb2.ListModelsRequest()
    while True:
        reply = yield from ask(LIST_MODELS, request, Delivery(timeout_s, request_id))
        models.extend(mirror(Model, message) for message in reply.models)
        if not reply.next_page_token:
            return tuple(models)
        request = model_service_pb2.ListModelsRequest(page_token=reply.next_page_token)


def get_model(model: str, **options: Unpack[CallOptions]) -> Script[Model]:
    """What can be asked of a model, with which parameters and at what cost."""
    request = fill(model_service_pb2.GetModelRequest(model=model), options)
    return mirror(Model, (yield from ask(GET_MODEL, request, delivery(options))).model)


def load_model(model: str, *, wait: bool = False, **options: Unpack[CallOptions]) -> Script[Model]:
    """Load a version (the latest without one); with ``wait`` answer when it is ready or has failed."""
    request = fill(model_service_pb2.LoadModelRequest(model=model, wait=wait), options)
    return mirror(Model, (yield from ask(LOAD_MODEL, request, delivery(options))).model)


def unload_model(model: str, **options: Unpack[CallOptions]) -> Script[Model]:
    """Unload a version (all of them without one) once its requests are done."""
    request = fill(model_service_pb2.UnloadModelRequest(model=model), options)
    return mirror(Model, (yield from ask(UNLOAD_MODEL, request, delivery(options))).model)


def self_test(
    model: str, *, checks: Sequence[str] = (), seed: int | None = None, **options: Unpack[CallOptions]
) -> Script[SelfTest]:
    """Run statistical checks of a model as it is served (all without ``checks``)."""
    request = model_service_pb2.SelfTestRequest(model=model, checks=checks)
    fill(request, {**options, "seed": seed})
    return mirror(SelfTest, (yield from ask(SELF_TEST, request, delivery(options))))
