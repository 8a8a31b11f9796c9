"""p(level) of every entry: the decoder's own probabilities, averaged over latents (Rao-Blackwell)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from serving.families.entropy import surprise
from serving.families.latent.observation import ObservationModel
from serving.families.latent.run import Run


class LevelShares:
    """Sums of p(level | z), float64 [levels, rows, *shape]."""

    def __init__(self, run: Run, observation: ObservationModel) -> None:
        space = run.spec.data
        self._run, self._observation = run, observation
        self._sums = torch.zeros(
            (space.levels, run.rows, *space.shape), dtype=torch.float64, device=run.device
        )

    def add(self, outputs: dict[str, torch.Tensor], owner: torch.Tensor, weights: torch.Tensor) -> None:
        """Lanes' outputs: ``owner`` [lanes] is each one's row, ``weights`` [lanes] float64."""
        shape = self._run.spec.data.shape
        for level, row_sums in enumerate(self._sums):
            value = torch.full((len(owner), *shape), float(level), device=self._run.device)
            share = self._observation.log_prob(outputs, self._observation.from_levels(value)).exp()
            row_sums.index_add_(0, owner, weights.reshape(-1, *[1] * len(shape)) * share)

    def entropy(self) -> NDArray[np.float32]:
        """[rows, *shape] nats; 0 for given entries."""
        shares = (self._sums / self._sums.sum(dim=0)).cpu().numpy()
        given = self._run.request.observed
        assert given is not None
        return np.where(given, 0.0, surprise(shares).sum(axis=0)).astype(np.float32)
