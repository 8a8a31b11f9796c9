"""PNG and levels: exact both ways, sizes checked before decoding."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from export.package.schema import DataSpace
from serving.api.convert.images import UNMAPPED, Raster, levels_of, pngs_of, raster_of
from serving.errors import InvalidArgument


def space(axes: tuple[str, ...], shape: tuple[int, ...], levels: int = 256) -> DataSpace:
    return DataSpace(kind="image", axes=axes, shape=shape, dtype="uint8", levels=levels)


def raster(axes: tuple[str, ...], shape: tuple[int, ...], levels: int = 256) -> Raster:
    found = raster_of(space(axes, shape, levels))
    assert found is not None
    return found


LAYOUTS = [
    (("channel", "height", "width"), (1, 5, 7)),
    (("channel", "height", "width"), (3, 5, 7)),
    (("height", "width", "channel"), (5, 7, 3)),
    (("width", "height", "channel"), (7, 5, 4)),
    (("height", "width"), (5, 7)),
    (("width", "height"), (7, 5)),
]


@pytest.mark.parametrize(("axes", "shape"), LAYOUTS)
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_rows_come_back_exactly_through_png(
    axes: tuple[str, ...], shape: tuple[int, ...], levels: int
) -> None:
    generator = np.random.Generator(np.random.Philox(levels))
    rows = generator.integers(0, levels, (3, *shape)).astype(np.uint8)
    form = raster(axes, shape, levels)
    assert np.array_equal(levels_of(pngs_of(rows, form), form, "png"), rows)


def test_picture_is_upright() -> None:
    form = raster(("width", "height"), (7, 5))
    row = np.zeros((1, 7, 5), np.uint8)
    row[0, 6, 0] = 255  # right end of the top line
    pixels = np.asarray(Image.open(io.BytesIO(pngs_of(row, form)[0])))
    assert pixels[0, 6] == 255


@given(st.integers(2, 256))
def test_every_level_has_a_gray_of_its_own(levels: int) -> None:
    form = raster(("height", "width"), (5, 7), levels)
    assert np.array_equal(form.level[form.gray], np.arange(levels))
    assert (form.level == UNMAPPED).sum() == 256 - levels


@pytest.mark.parametrize(
    "wrong",
    [
        DataSpace(kind="vector", axes=("entry",), shape=(3,), dtype="float32"),
        space(("channel", "height", "width"), (2, 5, 7)),
        DataSpace(kind="image", axes=("height", "width"), shape=(5, 7), dtype="int32", levels=300),
        DataSpace(kind="image", axes=("height", "width"), shape=(5, 7), dtype="float32"),
    ],
)
def test_other_spaces_have_no_pictures(wrong: DataSpace) -> None:
    assert raster_of(wrong) is None


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


GRAY = raster(("height", "width"), (5, 7), levels=17)


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (5, 7)),
        Image.new("RGB", (7, 5)),
        Image.new("LA", (7, 5)),
        Image.new("P", (7, 5)),
        Image.new("1", (7, 5)),
        Image.new("I;16", (7, 5)),
    ],
)
def test_other_sizes_and_modes_are_refused(image: Image.Image) -> None:
    with pytest.raises(InvalidArgument) as caught:
        levels_of([png(image)], GRAY, "data.images.png")
    assert caught.value.violations[0].field == "data.images.png[0]"


def test_header_that_claims_a_gigapixel_is_refused_before_decoding() -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    begun = time.perf_counter()
    with pytest.raises(InvalidArgument, match="50000 by 50000"):
        levels_of([b"\x89PNG\r\n\x1a\n" + chunk + bytes(50)], GRAY, "png")
    assert time.perf_counter() - begun < 0.1


@given(st.data())
def test_damaged_files_are_refused_or_read_but_never_raise_anything_else(data: st.DataObject) -> None:
    good = bytearray(pngs_of(np.zeros((1, 5, 7), np.uint8), GRAY)[0])
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidArgument):
        assert levels_of([bytes(good)], GRAY, "png").shape == (1, 5, 7)


def test_gray_that_is_no_level_is_marked_for_the_mask_to_judge() -> None:
    rows = levels_of([png(Image.new("L", (7, 5), 1))], GRAY, "png")
    assert (rows == UNMAPPED).all()
