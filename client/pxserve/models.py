"""What the server has, and where answers come from."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Determinism(enum.StrEnum):
    """Whether the same request gives the same bytes whatever it was batched with."""

    UNSPECIFIED = "unspecified"
    BATCH_INVARIANT = "batch_invariant"
    TOLERANCE = "tolerance"


class Operation(enum.StrEnum):
    """What can be asked of p(x)."""

    UNSPECIFIED = "unspecified"
    SAMPLE = "sample"
    LIKELIHOOD = "likelihood"
    INPAINT = "inpaint"
    SCORE_ANOMALY = "score_anomaly"
    ENCODE = "encode"
    DECODE = "decode"
    RECONSTRUCT = "reconstruct"
    INTERPOLATE = "interpolate"


class ModelState(enum.StrEnum):
    """Life of a model in the server's process."""

    UNSPECIFIED = "unspecified"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    FAILED = "failed"
    UNLOADING = "unloading"
    UNLOADED = "unloaded"


class Verdict(enum.StrEnum):
    """Outcome of a check."""

    UNSPECIFIED = "unspecified"
    PASS = "pass"
    FAIL = "fail"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True)
class Provenance:
    """Where an answer came from, and what it takes to get it again.

    ``parameters`` are all that were used, as text. ``tolerance`` is set where ``determinism`` is tolerance.
    Times in seconds. With ``validate_only``, evaluations and device seconds are predictions.
    """

    request_id: str
    model: str
    version: int
    package_digest: str
    family: str
    method: str
    seed: int
    first_row: int
    network_evaluations: int
    dtype: str
    device: str
    runtime: str
    server_version: str
    determinism: Determinism
    tolerance: float | None
    device_seconds: float
    queue_seconds: float
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a method; ``default_value`` as text, empty where absent unless set."""

    name: str
    type: str
    default_value: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Method:
    """One way to answer; ``row_seconds`` measured at the defaults on an idle server."""

    name: str
    kind: str
    is_default: bool
    parameters: tuple[Parameter, ...]
    row_seconds: float
    reference: str


@dataclass(frozen=True)
class Capability:
    """Whether and how a model answers an operation; ``reason`` says why not, and what to use instead."""

    operation: Operation
    supported: bool
    reason: str
    methods: tuple[Method, ...]


@dataclass(frozen=True)
class DataSpec:
    """A space of rows: ``kind`` image, tokens or vector; -1 in ``shape`` is variable."""

    kind: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    levels: int
    has_tokenizer: bool
    max_length: int


@dataclass(frozen=True)
class ConditionSpec:
    """A condition; ``when_absent`` is required, null or marginalize."""

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    classes: int
    when_absent: str
    class_names: tuple[str, ...]
    has_null: bool


@dataclass(frozen=True)
class Model:
    """A version of a model, and what can be asked of it (``capabilities`` only from ``get_model``)."""

    name: str
    version: int
    is_default_version: bool
    state: ModelState
    state_message: str
    family: str
    package_digest: str
    data: DataSpec | None
    latent: DataSpec | None
    conditions: tuple[ConditionSpec, ...]
    capabilities: tuple[Capability, ...]
    max_rows_per_request: int
    max_message_bytes: int
    description: str
    license: str
    memory_bytes: int


@dataclass(frozen=True)
class Check:
    """One check; FAIL says the server is wrong where it ``holds_for_any_weights``, else the model."""

    name: str
    verdict: Verdict
    holds_for_any_weights: bool
    statistic: float
    p_value: float | None
    detail: str


@dataclass(frozen=True)
class SelfTest:
    """What the checks found."""

    checks: tuple[Check, ...]
    provenance: Provenance
