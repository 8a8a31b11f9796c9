"""Grids of small pictures, enlarged without smoothing, with a caption per row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CELL = 64
GAP = 6
CAPTION = 18
INK = 20
PAPER = 245

Pictures = NDArray[np.generic]  # [rows, 1, height, width], levels 0..16
Strip = tuple[str, Sequence[NDArray[np.generic]]]  # a caption, and pictures [1, height, width]


def tile(picture: NDArray[np.generic], levels: int) -> Image.Image:
    """One picture [1, height, width] of ``levels`` levels as a dark-on-light cell."""
    grey = 255 - (np.asarray(picture[0], np.float64) * (255 / (levels - 1))).round().clip(0, 255)
    return Image.fromarray(grey.astype(np.uint8)).resize((CELL, CELL), Image.Resampling.NEAREST)


def shade(picture: NDArray[np.generic], observed: NDArray[np.bool_], levels: int) -> NDArray[np.generic]:
    """A copy in which entries that are not observed are middle grey."""
    return np.where(observed, picture, (levels - 1) // 3)


def save(strips: Sequence[Strip], path: Path, levels: int) -> None:
    """Write strips of pictures below each other as a PNG."""
    columns = max(len(pictures) for _, pictures in strips)
    height = CELL + GAP + CAPTION
    sheet = Image.new("L", (GAP + columns * (CELL + GAP), GAP + len(strips) * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, (caption, pictures) in enumerate(strips):
        top = GAP + row * height
        draw.text((GAP, top), caption, fill=INK)
        for column, picture in enumerate(pictures):
            sheet.paste(tile(picture, levels), (GAP + column * (CELL + GAP), top + CAPTION))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
