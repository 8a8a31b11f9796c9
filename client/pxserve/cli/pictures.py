"""Grids of pictures, enlarged without smoothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pxserve.arrays import Array
from pxserve.models import DataSpec

CELL_PX = 64  # small pictures are enlarged to at least half and at most all of this
GAP_PX = 4
HIDDEN = np.array([70, 95, 150], np.uint8)
Pixels = NDArray[np.uint8]


def pixels(data: Array, spec: DataSpec) -> Pixels:
    """[..., *shape] in data space as [..., height, width, 3]; floats are stretched from least to largest."""
    values = data.astype(np.float64)
    low, high = (0.0, spec.levels - 1.0) if spec.levels > 1 else (float(values.min()), float(values.max()))
    grey = np.rint(255 * np.clip((values - low) / max(high - low, 1e-12), 0, 1)).astype(np.uint8)
    ordered = _axes_last(grey, spec)
    return np.repeat(ordered, 3, axis=-1) if ordered.shape[-1] == 1 else ordered


def _axes_last(values: NDArray[Any], spec: DataSpec) -> NDArray[Any]:
    """Move the row's axes to height, width, channel (of length 1 where there is none)."""
    lead = values.ndim - len(spec.axes)
    if "channel" not in spec.axes:
        values, axes = values[..., np.newaxis], (*spec.axes, "channel")
    else:
        axes = spec.axes
    order = [lead + axes.index(axis) for axis in ("height", "width", "channel")]
    return values.transpose(*range(lead), *order)


def hide(picture: Pixels, observed: Array, spec: DataSpec) -> Pixels:
    """Paint entries that are not observed; ``observed`` [height, width], a row's shape, or the data's."""
    given = observed.astype(np.bool_)
    seen = given if given.ndim == 2 else np.any(_axes_last(given, spec), axis=-1)
    return np.where(np.asarray(seen)[..., np.newaxis], picture, HIDDEN).astype(np.uint8)


def square(pictures: Pixels) -> Pixels:
    """[n, h, w, 3] as the most square grid [rows, columns, h, w, 3], filled up with white."""
    columns = math.ceil(math.sqrt(len(pictures)))
    missing = -len(pictures) % columns
    blank = np.full((missing, *pictures.shape[1:]), 255, np.uint8)
    return np.concatenate([pictures, blank]).reshape(-1, columns, *pictures.shape[1:])


def grid(pictures: Pixels) -> Image.Image:
    """[rows, columns, h, w, 3] side by side on white, each pixel enlarged by a whole factor."""
    rows, columns, height, width, _ = pictures.shape
    scale = max(1, CELL_PX // max(height, width))
    down, across = height * scale + GAP_PX, width * scale + GAP_PX
    canvas = np.full((rows * down + GAP_PX, columns * across + GAP_PX, 3), 255, np.uint8)
    for row, column in np.ndindex(rows, columns):
        enlarged = pictures[row, column].repeat(scale, axis=0).repeat(scale, axis=1)
        top, left = row * down + GAP_PX, column * across + GAP_PX
        canvas[top : top + height * scale, left : left + width * scale] = enlarged
    return Image.fromarray(canvas)
