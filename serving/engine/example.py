"""A smallest valid request for any method of any model: for warm-up and for measured costs."""

from __future__ import annotations

import numpy as np

from export.package.schema import ModelSpec
from serving.families.absent import absent
from serving.families.capability import Capability, Method
from serving.families.request import Array, Operation, Request, Value
from serving.families.rows import Family

WITH_DATA = {
    Operation.LIKELIHOOD,
    Operation.INPAINT,
    Operation.SCORE_ANOMALY,
    Operation.ENCODE,
    Operation.RECONSTRUCT,
    Operation.INTERPOLATE,
}


def example_request(spec: ModelSpec, family: Family, capability: Capability, method: Method) -> Request:
    """One row at the method's defaults: mid-range data, upper half observed, latents of zero."""
    operation = capability.operation
    needs_data = operation in WITH_DATA
    data = _data(spec)
    lengths = np.array([data.shape[1]], np.int32) if spec.data.variable else None
    interpolate = operation is Operation.INTERPOLATE
    latent = getattr(family, "latent", None) if operation is Operation.DECODE else None
    return Request(
        operation=operation,
        method=method.name,
        parameters=_defaults(method),
        seed=0,
        first_row=0,
        rows=1,
        data=data if needs_data else None,
        lengths=lengths if needs_data else None,
        end=data if interpolate else None,
        end_lengths=lengths if interpolate else None,
        latents=np.zeros((1, *latent.shape), np.float32)
        if operation is Operation.DECODE and latent
        else None,
        observed=_observed(data) if operation is Operation.INPAINT else None,
        conditions=_conditions(spec),
    )


def _defaults(method: Method) -> dict[str, Value]:
    defaults = {p.name: p.default for p in method.parameters if p.default is not None}
    if any(p.name == "surrogate_sigma" for p in method.parameters):
        defaults["surrogate_sigma"] = 1.0  # has no default: a surrogate's sigma is the caller's to declare
    return defaults


def _data(spec: ModelSpec) -> Array:
    shape = [min(spec.data.max_length, 64) if size == -1 else size for size in spec.data.shape]
    return np.full((1, *shape), max(0, spec.data.levels // 2), dtype=spec.data.dtype)


def _observed(data: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    flat = np.zeros(data[0].size, np.bool_)
    flat[: flat.size // 2] = True
    return flat.reshape(data.shape)


def _conditions(spec: ModelSpec) -> dict[str, Array]:
    return {condition.name: absent(condition, 1) for condition in spec.conditions}
