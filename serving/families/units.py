"""Units in one place: data and model coordinates, base measures, nats, bits, statistics of weights.

A data value d and its model value m are related by m = scale * d + shift, per channel. A density of
the model is per unit of m; users are told log-probabilities in *data space*:

- real data (``levels`` 0), Lebesgue measure on d: log p_data(d) = log p_model(m) + sum ln|scale|.
- levels, counting measure. A discretised observation model already is the probability of a level:
  nothing is added. A density of m is not: its integral over the cell [d - 1/2, d + 1/2) of width
  |scale| is. ``dequantize`` places points in that cell (the one that ``to_data`` rounds back to d), and
  E_u[ln p_model] + sum ln|scale| <= ln P(d) for u uniform (Theis et al. 2016, eq. 7); the log-mean-exp
  over K points converges to ln P(d) from below (Ho et al. 2019, eq. 12).

So ``log_abs_det`` is added to densities of model coordinates, once, and never to masses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from export.package.schema import Affine, DataSpace
from serving.families.request import Array

Floats = NDArray[np.float64]


class LogMeanExp(NamedTuple):
    """ln of the mean weight, its standard error, and the effective sample size; float64."""

    value: Floats
    standard_error: Floats
    ess: Floats


def channel_axis(spec: DataSpace) -> int:
    """Axis of a row that per-channel scales run along: the one called channel(s) or c, else the first."""
    return _channel_axis(spec.axes)


def _channel_axis(axes: tuple[str, ...]) -> int:
    return next((i for i, name in enumerate(axes) if name.lower() in ("c", "channel", "channels")), 0)


@lru_cache(maxsize=256)
def _per_channel(axes: tuple[str, ...], shape: tuple[int, ...], values: tuple[float, ...]) -> Floats:
    if len(values) == 1:
        found = np.full((1,) * len(shape), values[0], np.float64)
    else:
        axis = _channel_axis(axes)
        if len(values) != shape[axis]:
            raise ValueError(f"transform: {len(values)} scales for {shape[axis]} channels")
        found = np.asarray(values, np.float64).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return found


def scale(spec: DataSpace) -> Floats:
    """Model units per data unit, broadcastable to a row."""
    values = spec.transform.scale if isinstance(spec.transform, Affine) else (1.0,)
    return _per_channel(spec.axes, spec.shape, values).copy()


def shift(spec: DataSpace) -> Floats:
    """The model value of data value 0, broadcastable to a row."""
    values = spec.transform.shift if isinstance(spec.transform, Affine) else (0.0,)
    return _per_channel(spec.axes, spec.shape, values).copy()


def to_model(spec: DataSpace, data: Array, device: torch.device | str = "cpu") -> torch.Tensor:
    """Data [..., *shape] to model coordinates: float32; tokens (ids under the identity) stay int64."""
    if spec.kind == "tokens" and not isinstance(spec.transform, Affine):
        return torch.from_numpy(np.ascontiguousarray(data, np.int64)).to(device)
    model = np.asarray(data, np.float64) * scale(spec) + shift(spec)
    return torch.from_numpy(np.ascontiguousarray(model, np.float32)).to(device)


def to_data(spec: DataSpace, x: torch.Tensor) -> Array:
    """Model coordinates [..., *shape] to data: levels are rounded half up and clamped to their range."""
    return to_data_of(spec)(x.numpy(force=True))


def to_data_of(spec: DataSpace) -> Callable[[Array], Array]:
    """``to_data`` of arrays in one space, with what depends on the space alone found once."""
    dtype = np.dtype(spec.dtype)
    if spec.kind == "tokens" and not isinstance(spec.transform, Affine):
        return lambda x: np.asarray(x, dtype)
    offset, factor, levels = shift(spec), scale(spec), spec.levels

    def converted(x: Array) -> Array:
        data: Floats = np.subtract(x, offset, dtype=np.float64)
        data /= factor
        if levels:
            data += 0.5
            np.floor(data, out=data)
            np.maximum(data, 0, out=data)
            np.minimum(data, levels - 1, out=data)
        return data.astype(dtype)

    return converted


def log_abs_det_map(spec: DataSpace) -> Floats:
    """ln|d model / d data| per element [*shape]; sum the elements that are scored (fixed shapes only)."""
    return np.broadcast_to(np.log(np.abs(scale(spec))), spec.shape).astype(np.float64)


def log_abs_det(spec: DataSpace) -> float:
    """Sum of ln|scale| over a row: log p_data = log p_model + log_abs_det, for densities (not masses)."""
    if not isinstance(spec.transform, Affine):
        return 0.0
    return float(log_abs_det_map(spec).sum())


def level_width(spec: DataSpace) -> float:
    """One level in model units, |scale|; ValueError where channels differ (use ``scale``)."""
    widths = np.abs(scale(spec))
    if not np.all(widths == widths.flat[0]):
        raise ValueError("level_width: channels have different scales; use scale(spec)")
    return float(widths.flat[0])


def dequantize(spec: DataSpace, x: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Points of the cells around levels ``x`` (model coordinates) for uniforms in (0, 1), same shape."""
    width = torch.as_tensor(np.abs(scale(spec)), dtype=x.dtype, device=x.device)
    return x + (uniforms - 0.5) * width


def log_mean_exp(log_w: Array, axis: int = -1) -> LogMeanExp:
    """Mean of weights given by logs, along ``axis``; every row on its own.

    The standard error is the delta method's sd(w) / (sqrt(k) mean(w)), nan for k = 1; trust it where
    the effective sample size (sum w)^2 / sum w^2 (Kong 1992) exceeds about 10. By Jensen the value is
    low by about var(w) / (2 k mean(w)^2) in the mean. Rows without any weight: -inf, nan, 0.
    """
    logs = np.moveaxis(np.asarray(log_w, np.float64), axis, -1)
    k = logs.shape[-1]
    top = logs.max(axis=-1, keepdims=True)
    weights = np.exp(logs - np.where(np.isfinite(top), top, 0.0))
    total, squares = weights.sum(axis=-1), np.square(weights).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = top[..., 0] + np.log(total) - math.log(k)
        ess = np.where(total > 0, np.square(total) / squares, 0.0)
        # sd with k - 1 from centred weights: the difference of squares would cancel for equal weights
        spread = np.square(weights - (total / k)[..., None]).sum(axis=-1) / np.float64(k - 1)
        error = np.sqrt(spread / k) / (total / k)
    return LogMeanExp(value, error, ess)


def bits(log_prob: Array | float, scored_dims: Array | int) -> Floats:
    """Bits per dimension: -log_prob / (scored_dims ln 2)."""
    dims = np.maximum(np.asarray(scored_dims), 1)
    return np.asarray(-np.asarray(log_prob, np.float64) / (dims * math.log(2.0)))


def rms_difference(a: Array, b: Array) -> Floats:
    """Root mean square difference of rows [rows, ...], in data units."""
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return np.asarray(np.sqrt(np.square(difference).reshape(len(difference), -1).mean(axis=-1)))
