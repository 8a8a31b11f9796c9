"""Other ways in which the same rows could have been shown to the network in training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from export.package.schema import Affine, DataSpace
from serving.commands.meaning.subject import Array, Reading, Subject
from serving.families import units

# Of the darkest and the brightest pixel; the last one stands for the levels themselves.
RANGES: tuple[tuple[float, float] | None, ...] = ((-1.0, 1.0), (0.0, 1.0), (-0.5, 0.5), None)


def declared(subject: Subject) -> Reading:
    """As the package says."""
    return Reading("", subject.data, subject.rows.data)


def data_readings(subject: Subject) -> Iterator[Reading]:
    """Other ranges, other layouts."""
    yield from _ranges(subject)
    yield from _layouts(subject)


def _ranges(subject: Subject) -> Iterator[Reading]:
    space = subject.data
    if not space.levels or space.kind == "tokens":
        return
    own = _ends(space)
    for given in RANGES:
        low, high = given or (0.0, float(space.levels - 1))
        if np.allclose(own, (low, high), atol=1e-6):
            continue
        transform = Affine(scale=((high - low) / (space.levels - 1),), shift=(low,))
        mistake = f"pixels in [{low:g}, {high:g}] taken for [{own[0]:g}, {own[1]:g}] (data_range)"
        yield Reading(mistake, space.model_copy(update={"transform": transform}), subject.rows.data)


def _ends(space: DataSpace) -> tuple[float, float]:
    """What the darkest and the brightest pixel are to the network."""
    ends = np.concatenate(
        [np.ravel(units.scale(space) * v + units.shift(space)) for v in (0, space.levels - 1)]
    )
    return float(ends.min()), float(ends.max())


def _layouts(subject: Subject) -> Iterator[Reading]:
    own = declared(subject)
    for mistake, data in layouts(subject.rows.data):
        yield own.with_data(mistake, data)


def layouts(data: Array) -> Iterator[tuple[str, Array]]:
    """Images [rows, C, H, W] with their numbers in other places; what is then mistaken."""
    if data.ndim != 4:
        return
    rows, channels, height, width = data.shape
    if channels > 1:
        flat = data.reshape(rows, -1)
        as_last = flat.reshape(rows, height, width, channels).transpose(0, 3, 1, 2)
        yield "channels last (HWC) taken for channels first: the data file is HWC", _whole(as_last)
        back = data.transpose(0, 2, 3, 1).reshape(data.shape)
        yield "channels last (HWC) taken for channels first: the network holds HWC (layout)", _whole(back)
        yield "blue-green-red taken for red-green-blue", _whole(data[:, ::-1])
    if height == width:
        yield "rows taken for columns: height and width are swapped", _whole(data.transpose(0, 1, 3, 2))


def _whole(data: Array) -> Array:
    return np.ascontiguousarray(data)
