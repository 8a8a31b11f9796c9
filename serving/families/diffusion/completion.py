"""What all ways of completing rows share: the given entries, and the reply."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from serving.families.diffusion.denoiser import Denoiser, rows_of
from serving.families.request import Array, Request
from serving.families.rows import Tensors


@dataclass(frozen=True)
class Given:
    """Rows of a request, each ``copies`` times: what is known of them. Unknown entries are never read."""

    denoiser: Denoiser
    request: Request
    copies: int

    @property
    def observed(self) -> NDArray[np.bool_]:
        """[rows, *shape]."""
        assert self.request.observed is not None
        return self.request.observed

    @property
    def data(self) -> Array:
        """The caller's entries; zeros where nothing is given."""
        assert self.request.data is not None
        return np.where(self.observed, self.request.data, np.zeros((), self.request.data.dtype))

    def known(self) -> torch.Tensor:
        """Model coordinates [rows * copies, *shape] float32, 0 where nothing is given."""
        x = self.denoiser.to_model(self.data) * torch.from_numpy(self.observed)
        return x.repeat_interleave(self.copies, dim=0)

    def mask(self) -> torch.Tensor:
        """[rows * copies, *shape] bool."""
        return torch.from_numpy(np.repeat(self.observed, self.copies, axis=0))

    def rows(self) -> NDArray[np.int64]:
        """Noise rows [rows * copies]."""
        return np.repeat(rows_of(self.request), self.copies)

    def copy(self) -> NDArray[np.int64]:
        """Which copy each is [rows * copies]."""
        return np.tile(np.arange(self.copies, dtype=np.int64), self.request.rows)

    def composed(self, x: torch.Tensor, copies: int) -> Array:
        """Model rows [rows * copies, *shape] as reply [rows, copies, *shape]: given entries bit for bit."""
        drawn = self.denoiser.to_data(x).reshape(self.request.rows, copies, *self.denoiser.shape)
        return np.where(self.observed[:, None], self.data[:, None].astype(drawn.dtype, copy=False), drawn)


class CompletedRows:
    """Rows of a completion loop as reply data."""

    def __init__(self, given: Given) -> None:
        self._given = given

    def data(self, rows: NDArray[np.int64], state: Tensors) -> tuple[Array, None]:
        """``state["x"]`` of the loop's rows in the data space, under the given entries."""
        drawn = self._given.denoiser.data_of(state)
        source = rows // self._given.copies
        return np.where(self._given.observed[source], self._given.data[source], drawn), None
