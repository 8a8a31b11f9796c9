"""Answers: NumPy arrays and what they are. Arrays have one entry per row; empty where they do not apply."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pxserve.arrays import Array
from pxserve.models import Provenance

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Value = bool | int | float | str | tuple[str, ...]


class SampleKind(enum.StrEnum):
    """Whose law samples follow: the model's, the model's up to finite steps, or another on purpose."""

    UNSPECIFIED = "unspecified"
    EXACT = "exact"
    DISCRETIZED = "discretized"
    MODIFIED = "modified"


class LikelihoodKind(enum.StrEnum):
    """What a likelihood is."""

    UNSPECIFIED = "unspecified"
    EXACT = "exact"
    LOWER_BOUND = "lower_bound"
    STOCHASTIC_LOWER_BOUND = "stochastic_lower_bound"
    ESTIMATE = "estimate"
    SURROGATE = "surrogate"
    UPPER_BOUND = "upper_bound"


class CompletionKind(enum.StrEnum):
    """Whether completions follow the conditional law."""

    UNSPECIFIED = "unspecified"
    EXACT = "exact"
    CONSISTENT = "consistent"
    APPROXIMATE = "approximate"
    POINT_ESTIMATE = "point_estimate"


class BaseMeasure(enum.StrEnum):
    """With respect to what a log-probability is."""

    UNSPECIFIED = "unspecified"
    COUNTING = "counting"
    LEBESGUE = "lebesgue"


class Dequantization(enum.StrEnum):
    """How integers were turned into points of a continuous model."""

    UNSPECIFIED = "unspecified"
    NONE = "none"
    UNIFORM = "uniform"
    IMPORTANCE = "importance"


class FinishReason(enum.StrEnum):
    """Why a row of variable length ended."""

    UNSPECIFIED = "unspecified"
    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class Samples:
    """Rows: ``data`` [n, *shape], of interpolations [rows, points, *shape]; ``text`` with a tokenizer.

    ``log_prob`` is in nats under the model, ``sampling_log_prob`` under temperature, top-k, top-p, min-p;
    both for autoregressive models. ``lengths`` are valid entries per row where rows differ.
    ``kind`` is unspecified, and ``path`` set, for interpolations.
    """

    data: Array
    kind: SampleKind
    provenance: Provenance
    text: tuple[str, ...] = ()
    lengths: Ints | None = None
    log_prob: Floats | None = None
    sampling_log_prob: Floats | None = None
    finish_reasons: tuple[FinishReason, ...] = ()
    path: str = ""
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Likelihoods:
    """``log_prob`` [rows] nats in data space; ``bits_per_dim`` = -log_prob / (scored_dims ln 2), always.

    ``kind`` says what log_prob is, ``target`` whose, ``base_measure`` with respect to what. ``terms`` sum
    to log_prob; ``log_prob_map`` is float32 [rows, *shape] and sums to it over a row.
    """

    log_prob: Floats
    bits_per_dim: Floats
    scored_dims: Ints
    kind: LikelihoodKind
    target: str
    base_measure: BaseMeasure
    dequantization: Dequantization
    provenance: Provenance
    standard_error: Floats | None = None
    effective_sample_size: Floats | None = None
    solver_error: Floats | None = None
    network_evaluations: Ints | None = None
    terms: Mapping[str, Floats] = field(default_factory=dict)
    log_prob_map: Array | None = None
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Completions:
    """``data`` [rows, n, *shape]; given entries are the caller's, bit for bit. ``text`` rows × n.

    ``mean`` and ``variance`` (float32 [rows, *shape]) come with ``moments=True``; ``entropy``
    (float32 [rows, *shape], nats, each entry's own) with ``entropy=True``.
    """

    data: Array
    kind: CompletionKind
    provenance: Provenance
    text: tuple[str, ...] = ()
    lengths: Ints | None = None
    effective_sample_size: Floats | None = None
    log_evidence: Floats | None = None
    mean: Array | None = None
    variance: Array | None = None
    entropy: Array | None = None
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Anomalies:
    """``score`` [rows], higher is stranger; ``p_value`` is conformal, against ``calibration_size`` rows."""

    score: Floats
    method: str
    provenance: Provenance
    p_value: Floats | None = None
    calibration_size: int = 0
    calibration_digest: str = ""
    score_map: Array | None = None


@dataclass(frozen=True)
class Latents:
    """``latents`` float32 [rows, *latent]; ``round_trip_error`` rms in data units, where asked for."""

    latents: Array
    provenance: Provenance
    round_trip_error: Floats | None = None


@dataclass(frozen=True)
class Decoded:
    """``data`` [rows, *shape]; ``text`` with a tokenizer."""

    data: Array
    provenance: Provenance
    text: tuple[str, ...] = ()
    lengths: Ints | None = None


@dataclass(frozen=True)
class Reconstructions:
    """``data`` [rows, *shape]; ``error`` [rows] rms in data units; ``text`` with a tokenizer."""

    data: Array
    error: Floats
    provenance: Provenance
    text: tuple[str, ...] = ()
    lengths: Ints | None = None


Result = TypeVar("Result", Samples, Likelihoods, Completions)


@dataclass(frozen=True)
class Progress:
    """How far a stream is; ``steps_total`` is an upper bound. At least one every 10 s."""

    steps_done: int
    steps_total: int
    predicted_seconds_left: float
    queued: bool


@dataclass(frozen=True)
class Preview:
    """How a row looks before it is final: ``data`` [*shape], the estimate at ``step``."""

    row: int
    data: Array
    step: int


@dataclass(frozen=True)
class TextDelta:
    """Text and ``tokens`` that were appended to a row since its last delta."""

    row: int
    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """A row that is final: ``data`` [*shape]. Of completions: ``row`` = data row × n + completion."""

    row: int
    data: Array
    text: str = ""


@dataclass(frozen=True)
class Estimate:
    """The likelihoods from what was drawn so far."""

    result: Likelihoods


@dataclass(frozen=True)
class Summary(Generic[Result]):
    """The last event: the result; of samples and completions without data, which came as rows."""

    result: Result
