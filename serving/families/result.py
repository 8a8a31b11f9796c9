"""Answers, one type per operation; arrays have one entry per row, floats are float64 unless data."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.families.request import Array, Value

Floats = NDArray[np.float64]


class SampleKind(enum.StrEnum):
    """Whose law a sample follows."""

    EXACT = "exact"
    DISCRETIZED = "discretized"
    MODIFIED = "modified"


class LikelihoodKind(enum.StrEnum):
    """What a likelihood is."""

    EXACT = "exact"
    LOWER_BOUND = "lower_bound"
    STOCHASTIC_LOWER_BOUND = "stochastic_lower_bound"
    UPPER_BOUND = "upper_bound"
    ESTIMATE = "estimate"
    SURROGATE = "surrogate"


class CompletionKind(enum.StrEnum):
    """Whether completions follow the conditional law."""

    EXACT = "exact"
    CONSISTENT = "consistent"
    APPROXIMATE = "approximate"
    POINT_ESTIMATE = "point_estimate"


class BaseMeasure(enum.StrEnum):
    """With respect to what a log-probability is."""

    COUNTING = "counting"
    LEBESGUE = "lebesgue"


class FinishReason(enum.StrEnum):
    """Why a row of variable length ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class Sampled:
    """``data`` [rows, *shape] in the data space; log-probabilities for autoregressive models only."""

    data: Array
    kind: SampleKind
    lengths: NDArray[np.int32] | None = None
    log_prob: Floats | None = None  # under the model
    sampling_log_prob: Floats | None = None  # under temperature, top-k, top-p, min-p
    finish_reasons: tuple[FinishReason, ...] = ()
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """``log_prob`` [rows] nats in data space; ``terms`` sum to it; empty arrays where not applicable."""

    log_prob: Floats
    scored_dims: NDArray[np.int64]
    kind: LikelihoodKind
    target: str
    base_measure: BaseMeasure
    standard_error: Floats | None = None
    effective_sample_size: Floats | None = None
    solver_error: Floats | None = None
    network_evaluations: NDArray[np.int64] | None = None  # [rows]
    dequantization: str = "none"
    terms: Mapping[str, Floats] = field(default_factory=dict)
    log_prob_map: NDArray[np.float32] | None = None  # [rows, *shape]
    parameters: Mapping[str, Value] = field(default_factory=dict)

    @property
    def bits_per_dim(self) -> Floats:
        """-log_prob / (scored_dims ln 2), always."""
        bits: Floats = -self.log_prob / (np.maximum(self.scored_dims, 1) * np.log(2.0))
        return bits


@dataclass(frozen=True)
class Completed:
    """``data`` [rows, completions, *shape]; observed entries are the caller's, bit for bit."""

    data: Array
    kind: CompletionKind
    effective_sample_size: Floats | None = None
    log_evidence: Floats | None = None
    mean: NDArray[np.float32] | None = None
    variance: NDArray[np.float32] | None = None
    lengths: NDArray[np.int32] | None = None
    parameters: Mapping[str, Value] = field(default_factory=dict)
    entropy: NDArray[np.float32] | None = None  # [rows, *shape] nats


@dataclass(frozen=True)
class Anomalies:
    """``score`` [rows], higher = stranger; p-values against the package's calibration."""

    score: Floats
    p_value: Floats | None = None
    calibration_size: int = 0
    calibration_digest: str = ""
    score_map: NDArray[np.float32] | None = None
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoded:
    """``latents`` [rows, *latent] float32; ``round_trip_error`` rms in data units, where asked for."""

    latents: NDArray[np.float32]
    round_trip_error: Floats | None = None
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Decoded:
    """``data`` [rows, *shape]."""

    data: Array
    lengths: NDArray[np.int32] | None = None
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Reconstructed:
    """``data`` [rows, *shape]; ``error`` [rows] rms in data units."""

    data: Array
    error: Floats
    lengths: NDArray[np.int32] | None = None
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Interpolated:
    """``data`` [rows, points, *shape], both ends included; ``path`` names the geometry."""

    data: Array
    path: str
    lengths: NDArray[np.int32] | None = None  # [rows * points]
    parameters: Mapping[str, Value] = field(default_factory=dict)


Result = Sampled | Scored | Completed | Anomalies | Encoded | Decoded | Reconstructed | Interpolated
