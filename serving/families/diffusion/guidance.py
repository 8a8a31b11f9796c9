"""Classifier-free guidance with a rescale: what does not fit into a row of coefficients."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def guided(
    output: torch.Tensor, twin: torch.Tensor, scale: torch.Tensor, rescale: NDArray[np.float32]
) -> torch.Tensor:
    """Guided prediction [rows, n], rescaled towards the conditional one's spread (Lin et al. 2024, eq. 15).

    Spreads are per row, summed in float64 by NumPy: no row's bits depend on how many others there are.
    """
    conditional, unconditional = output[: len(twin)], output.index_select(0, twin)
    mixed = unconditional + scale * (conditional - unconditional)
    ratio = _spread(conditional) / np.maximum(_spread(mixed), 1e-12)
    factor = np.where(rescale > 0, rescale * ratio + (1.0 - rescale), 1.0).astype(np.float32)
    return mixed * torch.from_numpy(factor)[:, None].to(mixed.device)


def _spread(values: torch.Tensor) -> NDArray[np.float64]:
    rows = np.ascontiguousarray(values.double().cpu().numpy())
    centred = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(np.sqrt(np.square(centred).mean(axis=1)), np.float64)
