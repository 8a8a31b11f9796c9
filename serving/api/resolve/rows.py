"""Rows and masks against the data space: sizes agree, entries are levels, what is hidden is not read."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from export.package.schema import DataSpace
from serving.api.resolve.asked import Rows
from serving.errors import invalid
from serving.families.request import Array

Mask = NDArray[np.bool_]


def check_shape(shape: tuple[int, ...], space: DataSpace, field: str) -> None:
    """InvalidArgument unless ``shape`` is [rows, *space.shape] with at least one row."""
    fits = len(shape) == 1 + len(space.shape) and all(
        (1 <= size <= space.max_length) if wanted == -1 else size == wanted
        for size, wanted in zip(shape[1:], space.shape, strict=False)
    )
    if not fits:
        sizes = [f"1..{space.max_length}" if size == -1 else str(size) for size in space.shape]
        raise invalid(field, f"must be [{', '.join(['rows', *sizes])}], not {list(shape[:8])}")
    if shape[0] == 0:
        raise invalid(field, "holds no rows")


def repeated(rows: Rows, count: int, field: str) -> Rows:
    """One row for all, or one each."""
    found = len(rows.data)
    if found == count:
        return rows
    if found != 1:
        raise invalid(field, f"holds {found} rows; give one, or one for each of {count}")
    lengths = None if rows.lengths is None else np.repeat(rows.lengths, count)
    return Rows(np.repeat(rows.data, count, axis=0), lengths)


def spread_mask(observed: Array, shape: tuple[int, ...], space: DataSpace) -> Mask:
    """The mask for every entry [rows, *shape] from the shape of a row, of the data or [height, width]."""
    row = shape[1:]
    if observed.shape == shape:
        return np.array(observed, np.bool_)
    if observed.shape == row or (observed.ndim == len(shape) and observed.shape == (1, *row)):
        return np.array(np.broadcast_to(observed, shape), np.bool_)
    picture = _picture_axes(space)
    if picture is not None and observed.shape == tuple(row[axis] for axis in picture):
        inserted = [slice(None) if axis in picture else None for axis in range(len(row))]
        ordered = observed if picture[0] < picture[1] else observed.T
        return np.array(np.broadcast_to(ordered[tuple(inserted)], shape), np.bool_)
    raise invalid(
        "observed.shape",
        f"{list(observed.shape[:8])} is neither a row's {list(row)}, nor the data's {list(shape)}, "
        "nor [height, width]",
    )


def cleaned(rows: Rows, space: DataSpace, mask: Mask | None, field: str) -> Rows:
    """The rows in the space's dtype, zeros where nothing may be read; InvalidArgument for wrong entries.

    Read are entries that are observed (all of them without a mask) and lie before the row's end.
    """
    read = mask
    if rows.lengths is not None:
        read = _before_end(rows) if mask is None else mask & _before_end(rows)
    if read is not None and not read.all():
        rows = Rows(np.where(read, rows.data, np.zeros((), rows.data.dtype)), rows.lengths)
    _check_values(rows.data, space, field)
    return Rows(rows.data.astype(space.dtype, copy=False), rows.lengths)


def check_lengths(rows: Rows, space: DataSpace, prefix: bool, field: str) -> Rows:
    """Lengths where the space (or a prompt: ``prefix``) has them, one per row, within the data."""
    if rows.lengths is None:
        full = np.full(len(rows.data), rows.data.shape[1], np.int32) if space.variable else None
        return Rows(rows.data, full)
    if not (space.variable or prefix):
        raise invalid(f"{field}.lengths", "rows of this model all have the same length")
    if len(rows.lengths) != len(rows.data):
        raise invalid(f"{field}.lengths", f"{len(rows.lengths)} lengths for {len(rows.data)} rows")
    most = math.prod(rows.data.shape[1:])
    if rows.lengths.min() < 1 or rows.lengths.max() > most:
        raise invalid(f"{field}.lengths", f"must lie in 1..{most}")
    return rows


def _before_end(rows: Rows) -> Mask:
    assert rows.lengths is not None
    entries = math.prod(rows.data.shape[1:])
    flat: Mask = np.arange(entries) < rows.lengths[:, None]
    return flat.reshape(rows.data.shape)


def _check_values(data: Array, space: DataSpace, field: str) -> None:
    if data.dtype.kind == "f":
        wrong = ~np.isfinite(data)
        if wrong.any():
            raise invalid(field, f"row {_first_row(wrong)} holds NaN or infinity")
    if space.levels and data.size and not 0 <= data.min() <= data.max() < space.levels:
        row = _first_row(np.less(data, 0) | np.greater_equal(data, space.levels))
        raise invalid(field, f"row {row} holds values outside 0..{space.levels - 1} (or no level's gray)")


def _first_row(wrong: Mask) -> int:
    return int(np.nonzero(wrong.reshape(len(wrong), -1).any(axis=1))[0][0])


def _picture_axes(space: DataSpace) -> tuple[int, int] | None:
    names = [axis.lower() for axis in space.axes]
    if space.kind != "image" or "height" not in names or "width" not in names:
        return None
    return names.index("height"), names.index("width")
