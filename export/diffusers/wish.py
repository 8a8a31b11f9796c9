"""What the caller says beside the folder: where the package goes, and what no file states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Wish:
    """``null_label``: the class id that means "none given"; ``no_null``: there is none.

    ``levels``, ``data_range``, ``size`` (height, width): of the pixels. ``image_condition``: the name of the
    condition whose channels the network reads after the noisy ones. ``sequence_length``: of the hidden states
    that it attends to, where no text encoder says it. ``precisions``: of the denoiser's graphs,
    the first is served by default. ``steps``: of requests that name none.
    """

    to: Path
    name: str | None = None
    version: int | None = None
    replace: bool = False
    license: str | None = None
    description: str = ""
    labels: tuple[str, ...] = ()
    null_label: int | None = None
    no_null: bool = False
    levels: int | None = None
    data_range: tuple[float, float] | None = None
    size: tuple[int, int] | None = None
    image_condition: str | None = None
    sequence_length: int | None = None
    steps: int | None = None
    scheduler: Path | None = None
    autoencoder: Path | None = None
    variant: str | None = None
    precisions: tuple[str, ...] = ("float32",)
    vjp: bool = False
    tolerance: float | None = None
