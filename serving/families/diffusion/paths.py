"""Ways from one latent to another; every point of a row is computed from that row alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

Path = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


def _mixed(
    start: torch.Tensor, end: torch.Tensor, a: NDArray[np.float64], b: NDArray[np.float64]
) -> torch.Tensor:
    """a [rows or 1, points] times start [rows, d] plus b times end: float32 [rows, points, d]."""
    first, second = start.double().numpy()[:, None], end.double().numpy()[:, None]
    return torch.from_numpy((a[:, :, None] * first + b[:, :, None] * second).astype(np.float32))


def lerp(start: torch.Tensor, end: torch.Tensor, points: int) -> torch.Tensor:
    """The straight line, whose middle is too short to be noise."""
    t = np.linspace(0.0, 1.0, points)[None]
    return _mixed(start, end, 1.0 - t, t)


def sqrt_lerp(start: torch.Tensor, end: torch.Tensor, points: int) -> torch.Tensor:
    """sqrt(1 - t) a + sqrt(t) b: standard normal at every t for independent standard normal ends."""
    t = np.linspace(0.0, 1.0, points)[None]
    return _mixed(start, end, np.sqrt(1.0 - t), np.sqrt(t))


def slerp(start: torch.Tensor, end: torch.Tensor, points: int) -> torch.Tensor:
    """Great-circle weights (Shoemake 1985; White 2016); nearly parallel or opposite ends: the line."""
    t = np.linspace(0.0, 1.0, points)[None]
    a, b = start.double().numpy(), end.double().numpy()
    norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    cosine = np.clip((a * b).sum(axis=1) / np.maximum(norms, 1e-300), -1.0, 1.0)
    angle = np.arccos(cosine)[:, None]
    sine = np.sin(angle)
    usable = sine > 1e-6
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = np.sin((1.0 - t) * angle) / sine, np.sin(t * angle) / sine
    return _mixed(start, end, np.where(usable, first, 1.0 - t), np.where(usable, second, t))


PATHS: dict[str, Path] = {"slerp": slerp, "lerp": lerp, "sqrt_lerp": sqrt_lerp}
