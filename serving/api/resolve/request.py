"""An Asked becomes a Request, or is refused with the field that is wrong."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from export.package.schema import DataSpace, ModelSpec
from serving.api.resolve.asked import DATA_FIELD, Asked, Rows
from serving.api.resolve.conditions import conditions_of
from serving.api.resolve.method import method_of, values_of
from serving.api.resolve.rows import Mask, check_lengths, check_shape, cleaned, repeated, spread_mask
from serving.errors import InvalidArgument, invalid
from serving.families.capability import Capability, Method
from serving.families.request import Operation, Request

if TYPE_CHECKING:
    from serving.api.convert.texts import Codec

SEED_BITS = 53  # of drawn seeds, so that JavaScript and JSON keep them exactly
_ROW_NUMBERS = 1 << 32  # of the noise counter that holds first_row + i


@dataclass(frozen=True)
class Rules:
    """What a request is held against: the package, what it can answer, and the server's limits."""

    spec: ModelSpec
    capabilities: tuple[Capability, ...]
    latent: DataSpace | None
    max_rows: int
    max_reply_bytes: int  # 0: rows travel one by one
    codec: Codec | None = None  # of texts; None: bytes


def resolve(asked: Asked, rules: Rules) -> Request:
    """The request with every value present; raises InvalidArgument or FailedPrecondition."""
    method, given = method_of(asked, rules.capabilities)
    values = values_of(asked.operation, method, given)
    rows = _row_count(asked)
    points = values.get("points", 1)
    _check_size(asked, rules, rows, points if isinstance(points, int) else 1)
    data, observed = _data(asked, rules.spec, method, rows)
    end = _end(asked, rules.spec, rows)
    return Request(
        operation=asked.operation,
        method=method.name,
        parameters=values,
        seed=secrets.randbits(SEED_BITS) if asked.seed is None else asked.seed,
        first_row=asked.first_row,
        rows=rows,
        completions=_completions(asked),
        data=None if data is None else data.data,
        lengths=None if data is None else data.lengths,
        end=None if end is None else end.data,
        end_lengths=None if end is None else end.lengths,
        latents=_latents(asked, rules),
        observed=observed,
        conditions=conditions_of(asked.conditions, rules.spec, rows, rules.codec),
        given_conditions=frozenset(one.name for one in asked.conditions if one.value is not None),
    )


def _row_count(asked: Asked) -> int:
    if asked.operation is Operation.SAMPLE:
        if asked.n is not None:
            return _positive(asked.n)
        return 1 if asked.data is None else len(asked.data.data)
    if asked.operation is Operation.DECODE:
        if asked.latents is None:
            raise invalid("latents", "is required")
        return len(asked.latents)
    if asked.data is None:
        raise invalid(_data_field(asked.operation), "is required")
    return len(asked.data.data)


def _completions(asked: Asked) -> int:
    return 1 if asked.operation is not Operation.INPAINT or asked.n is None else _positive(asked.n)


def _positive(n: int) -> int:
    if n < 1:
        raise invalid("n", f"{n} is below 1")
    return n


def _check_size(asked: Asked, rules: Rules, rows: int, points: int) -> None:
    produced = rows * _completions(asked) * points
    if produced > rules.max_rows:
        raise _too_many(asked, f"{produced} rows; this server answers at most {rules.max_rows} per request")
    if asked.first_row + rows > _ROW_NUMBERS:
        raise invalid("first_row", f"first_row + rows must be at most {_ROW_NUMBERS}")
    reply_bytes = produced * rules.spec.data.elements * np.dtype(rules.spec.data.dtype).itemsize
    returns_data = asked.operation not in (Operation.LIKELIHOOD, Operation.SCORE_ANOMALY, Operation.ENCODE)
    if returns_data and 0 < rules.max_reply_bytes < reply_bytes:
        limit = f"above max_message_bytes {rules.max_reply_bytes}"
        raise _too_many(asked, f"{produced} rows take {reply_bytes} bytes, {limit}; use the streaming call")


def _too_many(asked: Asked, description: str) -> InvalidArgument:
    if asked.operation in (Operation.SAMPLE, Operation.INPAINT) and asked.n is not None:
        return invalid("n", description)
    return invalid(
        "latents" if asked.operation is Operation.DECODE else _data_field(asked.operation), description
    )


def _data(asked: Asked, spec: ModelSpec, method: Method, rows: int) -> tuple[Rows | None, Mask | None]:
    field = _data_field(asked.operation)
    is_prompt = asked.operation is Operation.SAMPLE
    if asked.data is None or asked.operation is Operation.DECODE:
        return None, None
    if is_prompt and not _lists(method, "prompt"):
        raise invalid(
            field, "only autoregressive models continue a prompt; this one completes rows by Inpaint"
        )
    data = check_lengths(asked.data, spec.data, is_prompt, field)
    data = repeated(data, rows, field) if is_prompt else data
    observed = _observed(asked, method, data, spec)
    return cleaned(data, spec.data, observed, field), observed


def _observed(asked: Asked, method: Method, data: Rows, spec: ModelSpec) -> Mask | None:
    if asked.operation is Operation.INPAINT and asked.observed is None:
        raise invalid("observed", "is required: bool, true = given")
    if asked.observed is None:
        return None
    if asked.operation is Operation.LIKELIHOOD and not _lists(method, "observed"):
        raise invalid("observed", f"the method {method.name!r} of this model scores whole rows only")
    return spread_mask(asked.observed, data.data.shape, spec.data)


def _end(asked: Asked, spec: ModelSpec, rows: int) -> Rows | None:
    if asked.operation is not Operation.INTERPOLATE:
        return None
    if asked.end is None:
        raise invalid("end", "is required")
    end = check_lengths(asked.end, spec.data, False, "end")
    if len(end.data) != rows:
        raise invalid("end", f"{len(end.data)} rows, but start has {rows}")
    return cleaned(end, spec.data, None, "end")


def _latents(asked: Asked, rules: Rules) -> NDArray[np.float32] | None:
    if asked.latents is None:
        return None
    if rules.latent is None:
        raise invalid("latents", "this model has no latents")
    check_shape(asked.latents.shape, rules.latent, "latents.shape")
    if not np.isfinite(asked.latents).all():
        raise invalid("latents.data", "holds NaN or infinity")
    return asked.latents


def _lists(method: Method, name: str) -> bool:
    return any(parameter.name == name for parameter in method.parameters)


def _data_field(operation: Operation) -> str:
    return DATA_FIELD.get(operation, "data")
