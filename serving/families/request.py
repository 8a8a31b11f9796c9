"""A request after validation: every value present, every array in the model's own data space."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Value = bool | int | float | str | tuple[str, ...]


class Operation(enum.StrEnum):
    """What can be asked of p(x)."""

    SAMPLE = "sample"
    LIKELIHOOD = "likelihood"
    INPAINT = "inpaint"
    SCORE_ANOMALY = "score_anomaly"
    ENCODE = "encode"
    DECODE = "decode"
    RECONSTRUCT = "reconstruct"
    INTERPOLATE = "interpolate"


@dataclass(frozen=True)
class Request:
    """One validated operation on one model; ``parameters`` holds every parameter of the method.

    Row i draws from (seed, first_row + i). Arrays have one entry per row: a single prompt, condition
    or mask has been repeated. ``conditions`` holds every condition of the package (null values
    filled in); ``given_conditions`` names those that the client set.
    """

    operation: Operation
    method: str
    parameters: Mapping[str, Value]
    seed: int
    first_row: int
    rows: int
    completions: int = 1  # n of Inpaint
    data: Array | None = None  # [rows, *shape]; of Interpolate: the start; of Sample: the prompt
    lengths: NDArray[np.int32] | None = None  # [rows] valid entries, where the length varies
    end: Array | None = None  # [rows, *shape], of Interpolate
    end_lengths: NDArray[np.int32] | None = None
    latents: NDArray[np.float32] | None = None  # [rows, *latent]
    observed: NDArray[np.bool_] | None = None  # [rows, *shape], true = given
    conditions: Mapping[str, Array] = field(default_factory=dict)
    given_conditions: frozenset[str] = frozenset()
