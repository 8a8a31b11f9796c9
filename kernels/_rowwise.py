"""Row reductions on CPU whose order depends on the row's length alone, never on the batch or on threads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float32]


def masses(logits: Floats, maximum: Floats, inverse_temperature: Floats) -> Floats:
    """Sum of exp((logits - maximum) / temperature) of each row; float32 [rows, V], [rows], [rows] -> [rows].

    Row by row, so that NumPy's pairwise order depends on the row's length alone, and the work array stays in
    cache.
    """
    result, work = np.empty(len(logits), np.float32), np.empty(logits.shape[1], np.float32)
    for index, line in enumerate(logits):
        np.subtract(line, maximum[index], out=work)
        if inverse_temperature[index] != 1:
            work *= inverse_temperature[index]
        result[index] = np.exp(work, out=work).sum()
    return result


def row_sums(values: torch.Tensor) -> torch.Tensor:
    """Sum each row of float64 [rows, n]; torch would split one long row over threads, but not many."""
    return torch.from_numpy(np.add.reduce(np.ascontiguousarray(values.numpy()), axis=1))
