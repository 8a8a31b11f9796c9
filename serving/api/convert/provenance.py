"""Provenance: where an answer came from, and what it takes to get it again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from pxserve.v1 import provenance_pb2
from serving.api.convert.values import text_of
from serving.engine.messages import Usage
from serving.families.request import Request, Value
from serving.repository.loader import LoadedModel

_DETERMINISM = {
    "batch_invariant": provenance_pb2.DETERMINISM_BATCH_INVARIANT,
    "tolerance": provenance_pb2.DETERMINISM_TOLERANCE,
}


@cache
def server_version() -> str:
    """The version of the distribution pxserve-server; "unknown" where it runs from a bare checkout."""
    try:
        return version("pxserve-server")
    except PackageNotFoundError:
        return "unknown"


def provenance_of(
    loaded: LoadedModel, request: Request, values: Mapping[str, Value], usage: Usage, request_id: str
) -> provenance_pb2.Provenance:
    """Of one answer; ``values`` are the parameters as they were used."""
    message = provenance_pb2.Provenance(
        request_id=request_id,
        model=loaded.key.name,
        version=loaded.key.version,
        package_digest=loaded.digest,
        family=loaded.spec.family,
        method=request.method,
        seed=request.seed,
        first_row=request.first_row,
        network_evaluations=usage.network_evaluations,
        dtype=loaded.dtype,
        device=loaded.device,
        runtime=loaded.runtime,
        server_version=server_version(),
        determinism=_DETERMINISM.get(loaded.determinism, provenance_pb2.DETERMINISM_UNSPECIFIED),
        device_seconds=usage.device_seconds,
        queue_seconds=usage.queue_seconds,
        parameters={name: text_of(value) for name, value in values.items()},
    )
    if loaded.tolerance is not None:
        message.tolerance = loaded.tolerance
    return message
