"""Files and flags as the arrays, texts and masks that the client takes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pxserve.arrays import Array
from pxserve.models import DataSpec, Model

_ROWS = re.compile(r"-?\d+|(-?\d*):(-?\d*)")


class UsageError(Exception):
    """The command line cannot be carried out; exit code 2."""


def load(name: str, spec: DataSpec | None) -> Array:
    """Rows of ``FILE[@KEY][@START:STOP]``; a PNG is one row in the levels of ``spec``."""
    path, *selectors = [name] if Path(name).exists() else name.split("@")
    try:
        array = _read(Path(path), [s for s in selectors if not _ROWS.fullmatch(s)], spec)
    except (OSError, ValueError, KeyError, UnidentifiedImageError) as error:
        raise UsageError(f"{path}: {error}") from error
    for rows in (s for s in selectors if _ROWS.fullmatch(s)):
        array = array[_slice(rows)]
    return array


def rows(names: list[str], spec: DataSpec | None) -> Array:
    """Rows of several files, one after the other."""
    parts = [load(name, spec) for name in names]
    try:
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
    except ValueError as error:
        raise UsageError(f"the files' rows differ: {error}") from error


def _read(path: Path, keys: list[str], spec: DataSpec | None) -> Array:
    match path.suffix.lower():
        case ".npy":
            array: Array = np.load(path, allow_pickle=False)
            return array
        case ".npz":
            with np.load(path, allow_pickle=False) as archive:
                chosen: Array = archive[keys[0] if keys else _only(list(archive.files))]
            return chosen
        case ".png":
            return _levels(path, spec)
        case suffix:
            raise ValueError(f"{suffix or 'no suffix'}: expected .npy, .npz or .png")


def _only(names: list[str]) -> str:
    if len(names) != 1 and "data" not in names:
        raise ValueError(f"holds {', '.join(names)}; choose one with @KEY")
    return names[0] if len(names) == 1 else "data"


def _levels(path: Path, spec: DataSpec | None) -> Array:
    """The picture's values at the nearest levels of the model [1, *shape]."""
    if spec is None or spec.kind != "image" or spec.levels < 2:
        raise ValueError("pictures are for models of images with levels")
    channels = spec.shape[spec.axes.index("channel")] if "channel" in spec.axes else 1
    with Image.open(path) as picture:
        values = np.asarray(picture.convert("RGB" if channels == 3 else "L"), np.float64)
    values = values.reshape(*values.shape[:2], channels)
    levels = np.rint(values * (spec.levels - 1) / 255).astype(spec.dtype)
    sizes = dict(zip(("height", "width", "channel"), range(3), strict=True))
    order = [sizes[axis] for axis in spec.axes]
    array = levels.transpose(order) if len(order) == 3 else levels[..., 0].transpose(order)
    if array.shape != spec.shape:
        raise ValueError(f"is {array.shape}, the model's rows are {spec.shape}; pictures are not resized")
    return array[np.newaxis]


def _slice(text: str) -> slice:
    if ":" not in text:
        return slice(int(text), int(text) + 1 or None)
    start, stop = (int(part) if part else None for part in text.split(":"))
    return slice(start, stop)


def mask(given: argparse.Namespace, spec: DataSpec | None) -> Array | None:
    """``--observed FILE`` or ``--hide SIDE`` as true = given; None without either."""
    if given.observed:
        return load(given.observed, None)
    if not given.hide:
        return None
    if spec is None or spec.kind != "image":
        raise UsageError("--hide is for models of images; give --observed FILE.npy")
    height, width = (spec.shape[spec.axes.index(axis)] for axis in ("height", "width"))
    down, across = np.mgrid[:height, :width]
    first, second = {"bottom": (down, height), "top": (down, height)}.get(given.hide, (across, width))
    half = first < second // 2 if given.hide in ("bottom", "right") else first >= second // 2
    return np.asarray(half, np.bool_)


def conditions(entries: list[str] | None) -> dict[str, Any] | None:
    """``NAME=VALUE`` flags by name."""
    if not entries:
        return None
    pairs = [entry.partition("=") for entry in entries]
    if any(not separator for _, separator, _ in pairs):
        raise UsageError("--condition takes NAME=VALUE")
    return {name: _value(value) for name, _, value in pairs}


def _value(text: str) -> Any:
    if text.startswith("@"):
        return load(text[1:], None)
    if text in ("", "null"):
        return None
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def collect(given: argparse.Namespace, describe: Callable[[], Model]) -> dict[str, Any]:
    """Everything that is not a plain parameter: rows, masks, labels, conditions, the prompt."""
    needs = [getattr(given, name, None) for name in ("data", "start", "end", "hide")]
    spec = describe().data if any(needs) else None
    found: dict[str, Any] = {
        name: rows(getattr(given, name), spec)
        for name in ("data", "start", "end", "latents")
        if getattr(given, name, None)
    }
    if getattr(given, "text", None):
        found["data"] = given.text
    if hasattr(given, "observed"):
        found["observed"] = mask(given, spec)
    if getattr(given, "prompt", None):
        prompt = given.prompt
        found["prompt"] = load(prompt[1:], None) if prompt.startswith("@") else prompt
    if getattr(given, "label", None):
        found["label"] = given.label[0] if len(given.label) == 1 else given.label
    if getattr(given, "condition", None):
        found["conditions"] = conditions(given.condition)
    return {name: value for name, value in found.items() if value is not None}
