"""Seeded inputs for any component: values that its model could meet."""

from __future__ import annotations

import math
import zlib

import numpy as np
import numpy.typing as npt

from export.package.schema import Diffusion, FlowSchedule, ModelSpec, TensorSpec, VeSchedule, VpSchedule
from export.package.verify import Arrays

LENGTH = 32  # of named axes, at most
SIGMAS = (0.01, 10.0)  # where the schedule does not say

_Values = npt.NDArray[np.generic]


def seeded_inputs(spec: ModelSpec, component: str, rows: int, seed: int = 0) -> Arrays:
    """Inputs [rows, ...] by name; each depends on ``seed`` and its name only."""
    return {tensor.name: _values(spec, tensor, rows, seed) for tensor in spec.components[component].inputs}


def seeded_tokens(spec: ModelSpec, rows: int, length: int = LENGTH, seed: int = 0) -> Arrays:
    """``tokens`` int64 [rows, length at most] as a causal network reads them: begin symbol, then symbols."""
    assert spec.autoregressive is not None
    rng = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(b"tokens")]))
    tokens = rng.integers(0, spec.autoregressive.vocabulary, (rows, min(length, spec.data.elements)))
    tokens[:, 0] = spec.autoregressive.begin_symbol or 0
    return {"tokens": tokens}


def _values(spec: ModelSpec, tensor: TensorSpec, rows: int, seed: int) -> _Values:
    rng = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(tensor.name.encode())]))
    dtype = np.dtype(tensor.dtype)
    cached = _cache_values(tensor, rows)
    if cached is not None:
        return cached
    shape = (rows, *(_size(spec, axis) for axis in tensor.row_shape))
    if tensor.name == "t" and spec.diffusion is not None:
        return times(spec.diffusion, rng.random(shape)).astype(dtype)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, _limit(spec, tensor.name), shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def _cache_values(tensor: TensorSpec, rows: int) -> _Values | None:
    """Inputs of a decoder whose cache is empty and that reads one token."""
    if tensor.name == "seqlens_k":
        return np.zeros(rows, np.int32)
    if tensor.name == "total_sequence_length":
        return np.ones((), np.int32)
    if tensor.name.startswith("past_"):
        sizes = [axis if isinstance(axis, int) else 1 for axis in tensor.row_shape]
        return np.zeros((rows, *sizes), tensor.dtype)
    return None


def _size(spec: ModelSpec, axis: int | str) -> int:
    if isinstance(axis, int):
        return axis
    return 1 if axis == "new" else min(LENGTH, spec.data.elements)


def _limit(spec: ModelSpec, name: str) -> int:
    """Integers of an input lie below this: classes, or symbols."""
    classes = {condition.name: condition.classes for condition in spec.conditions}
    texts = [1 + max(condition.null_tokens) for condition in spec.conditions if condition.null_tokens]
    if name == "tokens" and texts:
        return texts[0]  # its end symbol, which is one of the last of a vocabulary
    return classes.get(name, spec.data.levels or 1)


def times(section: Diffusion, u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Network times at the fractions ``u`` in [0, 1) of the schedule, in the unit of ``time_input``."""
    low, high = _sigmas(section)
    log_sigma = math.log(low) + u * (math.log(high) - math.log(low))
    units = {
        "step": np.floor(u * _steps(section)),
        "fraction": u,
        "reversed_fraction": 1.0 - u,
        "sigma": np.exp(log_sigma),
        "log_sigma": log_sigma,
        "quarter_log_sigma": log_sigma / 4.0,
    }
    return np.asarray(units[section.time_input], np.float64)


def _steps(section: Diffusion) -> int:
    schedule = section.schedule
    if isinstance(schedule, FlowSchedule):
        return schedule.training_steps
    return len(schedule.betas) if isinstance(schedule, VpSchedule) else len(schedule.sigmas)


def _sigmas(section: Diffusion) -> tuple[float, float]:
    schedule = section.schedule
    return (schedule.sigmas[0], schedule.sigmas[-1]) if isinstance(schedule, VeSchedule) else SIGMAS
