"""A request as the client put it: what is absent is absent, and nothing is checked against the model yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.families.request import Array, Operation, Value


@dataclass(frozen=True)
class Rows:
    """Rows in the data space: ``data`` [rows, *shape]; ``lengths`` [rows] where the length varies.

    ``data`` may still hold values that are no levels (-1 for unmapped gray): only entries that
    are observed have to be right, and which those are is not known before the mask.
    """

    data: Array
    lengths: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class Given:
    """One condition: ids [1 or rows] int64, a vector [1 or rows, ...] float32, texts [1 or rows], or None.

    None is the null value.
    """

    name: str
    value: Array | None


@dataclass(frozen=True)
class Asked:
    """One operation on one model. ``choice`` is what selects the method: sampler, method or path."""

    operation: Operation
    choice: str | None = None
    parameters: Mapping[str, Value] = field(default_factory=dict)
    seed: int | None = None
    first_row: int = 0
    n: int | None = None
    data: Rows | None = None
    end: Rows | None = None
    latents: NDArray[np.float32] | None = None  # [rows, *latent]
    observed: NDArray[np.bool_] | None = None  # shape of a row, of the data, or [height, width]
    conditions: tuple[Given, ...] = ()


# What selects the method of an operation, and where its other parameters lie in the message. Likelihoods
# and completions have a message of parameters; those that drive the sampling lie one level deeper.
CHOICE_FIELD: Mapping[Operation, str] = {
    Operation.SAMPLE: "parameters.sampler",
    Operation.LIKELIHOOD: "parameters.method",
    Operation.INPAINT: "parameters.method",
    Operation.SCORE_ANOMALY: "method",
    Operation.ENCODE: "method",
    Operation.DECODE: "parameters.sampler",
    Operation.RECONSTRUCT: "",
    Operation.INTERPOLATE: "path",
}
DATA_FIELD: Mapping[Operation, str] = {Operation.SAMPLE: "prompt", Operation.INTERPOLATE: "start"}

_TOP_LEVEL = {
    Operation.SCORE_ANOMALY: {"score_map"},
    Operation.ENCODE: {"steps", "round_trip"},
    Operation.INTERPOLATE: {"points", "path"},
    Operation.RECONSTRUCT: {"steps"},
}
_OF_INPAINT = {"method", "particles", "sweeps", "jump_length", "resamplings", "moments", "entropy"}


def field_of(operation: Operation, parameter: str) -> str:
    """The path of a parameter in the request message of its operation."""
    if parameter in _TOP_LEVEL.get(operation, ()):
        return parameter
    if operation is Operation.INPAINT and parameter not in _OF_INPAINT:
        return f"parameters.sampling.{parameter}"
    return f"parameters.{parameter}"
