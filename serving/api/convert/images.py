"""PNG to levels and back: exact, never resized; sizes are read from the header before decoding."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.package.schema import DataSpace, Palette
from serving.errors import invalid
from serving.families.request import Array

UNMAPPED = -1  # a gray value that is no level; it is refused unless a mask says that nobody reads it

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">8sI4sIIBBBBB")  # signature, length, "IHDR", width, height, depth, colour, ...
_PICTURE = ("height", "width", "channel")
_MODES = {1: ("L", 0), 3: ("RGB", 2), 4: ("RGBA", 6)}  # channels: Pillow's mode, PNG's colour type


@dataclass(frozen=True)
class Raster:
    """How rows of a data space look as pictures: axis order and gray values of the levels."""

    height: int
    width: int
    channels: int
    order: tuple[int, int, int]  # transposes [height, width, channel] to the data's axes
    flat: bool  # the data has no channel axis
    levels: int
    colors: NDArray[np.float64] | None = None  # [levels, 3] where levels are entries of a palette

    @property
    def gray(self) -> NDArray[np.uint8]:
        """[levels] gray value of each level: round(255 k / (levels - 1))."""
        return np.round(np.arange(self.levels) * (255.0 / (self.levels - 1))).astype(np.uint8)

    @property
    def level(self) -> NDArray[np.int16]:
        """[256] level of each gray value, or UNMAPPED."""
        table = np.full(256, UNMAPPED, np.int16)
        table[self.gray] = np.arange(self.levels)
        return table


def raster_of(space: DataSpace) -> Raster | None:
    """None where a row is no picture of up to 256 levels with 1, 3 or 4 channels, or of a palette."""
    sizes = dict(zip(space.axes, space.shape, strict=True))
    if isinstance(space.transform, Palette):
        return _palette(space.transform, sizes)
    has_axes = {"height", "width"} <= set(sizes) <= {"height", "width", "channel"}
    channels = sizes.get("channel", 1)
    if space.kind != "image" or not has_axes or channels not in _MODES or not 2 <= space.levels <= 256:
        return None
    axes = space.axes if "channel" in sizes else (*space.axes, "channel")
    first, second, third = (_PICTURE.index(axis) for axis in axes)
    order = (first, second, third)
    return Raster(sizes["height"], sizes["width"], channels, order, "channel" not in sizes, space.levels)


def _palette(palette: Palette, sizes: dict[str, int]) -> Raster | None:
    """Pictures in colour whose rows [height, width] are entries of the palette."""
    if list(sizes) != ["height", "width"]:
        return None
    colors = np.array(palette.colors, np.float64)
    return Raster(sizes["height"], sizes["width"], 3, (0, 1, 2), True, len(colors), colors)


def levels_of(pictures: Sequence[bytes], raster: Raster, field: str) -> NDArray[np.int16]:
    """[rows, *shape] levels, UNMAPPED where a gray value is none; InvalidArgument for any other picture.

    Of a palette, every colour is its nearest entry.
    """
    for index, png in enumerate(pictures):
        _check_header(png, raster, f"{field}[{index}]")
    rows = [_decoded(png, raster, f"{field}[{index}]") for index, png in enumerate(pictures)]
    stacked = np.stack(rows)
    return raster.level[stacked] if raster.colors is None else _nearest(stacked, raster.colors)


def pngs_of(rows: Array, raster: Raster) -> list[bytes]:
    """One PNG per row of ``rows`` [rows, *shape] (levels)."""
    if raster.colors is not None:
        shown = np.round(raster.colors).astype(np.uint8)
        return [_encoded(row, "RGB") for row in shown[np.asarray(rows, np.int64)]]
    solid = rows[..., None] if raster.flat else rows
    pixels = raster.gray[np.transpose(solid, (0, *(1 + np.argsort(raster.order)))).astype(np.int64)]
    if raster.channels == 1:
        pixels = pixels[..., 0]
    return [_encoded(row, _MODES[raster.channels][0]) for row in pixels]


def _nearest(pixels: NDArray[np.uint8], colors: NDArray[np.float64]) -> NDArray[np.int16]:
    """[...] the entry of least squared distance for pixels [..., 3]; the first among equals.

    Colours as they are shown come first, so that a picture of the model's own comes back as it was.
    """
    distinct, back = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    found = np.empty(len(distinct), np.int16)
    shown = {tuple(color): i for i, color in reversed(list(enumerate(np.round(colors).astype(int).tolist())))}
    for place, color in enumerate(distinct.astype(np.float64)):
        own = shown.get(tuple(color.astype(int).tolist()))
        found[place] = np.square(colors - color).sum(axis=1).argmin() if own is None else own
    return found[back.reshape(-1)].reshape(pixels.shape[:-1])


def _check_header(png: bytes, raster: Raster, field: str) -> None:
    if len(png) < _HEADER.size:
        raise invalid(field, "is not a PNG")
    signature, _, chunk, width, height, depth, colour, _, _, _ = _HEADER.unpack_from(png)
    if signature != _SIGNATURE or chunk != b"IHDR":
        raise invalid(field, "is not a PNG")
    if (width, height) != (raster.width, raster.height):
        raise invalid(
            field,
            f"is {width} by {height} pixels; the model takes {raster.width} by {raster.height}",
        )
    mode, wanted = _MODES[raster.channels]
    if depth != 8 or colour != wanted:
        raise invalid(
            field, f"must be 8-bit {mode} (PNG colour type {wanted}), not {depth}-bit type {colour}"
        )


def _decoded(png: bytes, raster: Raster, field: str) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            pixels = np.asarray(image)
    except Exception as error:  # a decoder of foreign bytes raises what it likes
        raise invalid(field, f"is a damaged PNG: {error}") from error
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape != (raster.height, raster.width, raster.channels) or pixels.dtype != np.uint8:
        raise invalid(
            field, f"decodes to {pixels.shape} {pixels.dtype}; are there chunks that change its type?"
        )
    row = np.transpose(pixels, raster.order)
    return row[..., 0] if raster.flat and raster.colors is None else row


def _encoded(pixels: NDArray[np.uint8], mode: str) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    assert image.mode == mode
    image.save(buffer, format="PNG")
    return buffer.getvalue()
