"""Answers as files: .png grids, .npy arrays, .txt texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pxserve.arrays import Array
from pxserve.cli import pictures
from pxserve.cli.files import UsageError
from pxserve.models import DataSpec, Model
from pxserve.results import Completions, Latents, Reconstructions, Samples

SUFFIXES = (".png", ".npy", ".txt")


def check(out: Path) -> None:
    """Refuse a name that nothing could be written to, before any work is asked for."""
    if out.suffix not in SUFFIXES:
        raise UsageError(f"--out {out}: expected a name that ends in {', '.join(SUFFIXES)}")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}")


def save(out: Path, result: Any, inputs: dict[str, Any], describe: Callable[[], Model]) -> None:
    """Write ``result`` in the form that the suffix of ``out`` says."""
    if out.suffix == ".txt":
        out.write_text("".join(f"{text}\n" for text in getattr(result, "text", ())), encoding="utf-8")
    elif out.suffix == ".npy":
        np.save(out, _array(result))
    else:
        spec = describe().data
        if spec is None or spec.kind != "image" or isinstance(result, Latents) or not hasattr(result, "data"):
            raise UsageError(f"--out {out}: these are no pictures; write .npy or .txt")
        pictures.grid(_cells(result, inputs, spec)).save(out)


def _array(result: Any) -> Array:
    for name in ("data", "latents", "log_prob", "score"):
        if hasattr(result, name):
            return np.asarray(getattr(result, name))
    raise UsageError("this answer holds no array")


def _cells(result: Any, inputs: dict[str, Any], spec: DataSpec) -> pictures.Pixels:
    """[rows, columns, h, w, 3]: beside completions what was given, beside reconstructions the original."""
    shown = pictures.pixels(result.data, spec)
    match result:
        case Completions():
            given = pictures.hide(
                pictures.pixels(_rows(inputs["data"], spec), spec), inputs["observed"], spec
            )
            return np.concatenate([given[:, np.newaxis], shown], axis=1)
        case Reconstructions():
            return np.stack([pictures.pixels(_rows(inputs["data"], spec), spec), shown], axis=1)
        case Samples() if result.path:
            return shown
        case _:
            return pictures.square(shown)


def _rows(data: Any, spec: DataSpec) -> Array:
    array = np.asarray(data)
    return array[np.newaxis] if array.ndim == len(spec.shape) else array
