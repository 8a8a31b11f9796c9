"""Particles of rows as flat lanes; their noise is a function of seed, row, line, stream and particle."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from kernels.philox import STREAMS_PER_PARTICLE, philox_normal, philox_uniform
from serving.families.request import Request


@dataclass(frozen=True)
class Lanes:
    """Flat list of (row, particle) pairs, row by row; ``owner`` and ``particle`` int64 [lanes].

    A particle may be an importance sample, a chain or a completion; what it draws depends on its own
    number and its row's alone, never on how many there are.
    """

    seed: int  # the request's 64 bits as a signed integer
    first_row: int
    owner: torch.Tensor
    particle: torch.Tensor

    @classmethod
    def of(
        cls,
        request: Request,
        count: int,
        device: torch.device,
        *,
        first: int = 0,
        rows: torch.Tensor | None = None,
    ) -> Lanes:
        """Particles ``first`` to ``first + count - 1`` of every row (or of the given ones)."""
        chosen = torch.arange(request.rows, device=device) if rows is None else rows.to(device)
        particle = torch.arange(first, first + count, device=device).repeat(len(chosen))
        seed = int(np.uint64(request.seed).view(np.int64))
        return cls(seed, request.first_row, chosen.repeat_interleave(count), particle)

    def __len__(self) -> int:
        return len(self.owner)

    def __getitem__(self, part: slice) -> Lanes:
        return replace(self, owner=self.owner[part], particle=self.particle[part])

    def normal(self, stream: int, line: int, n: int) -> torch.Tensor:
        """Unit normals [lanes, n] float32."""
        return philox_normal(*self._counters(stream, line), n)

    def uniform(self, stream: int, line: int, n: int) -> torch.Tensor:
        """Uniforms in [0, 1), [lanes, n] float32."""
        return philox_uniform(*self._counters(stream, line), n)

    def _counters(
        self, stream: int, line: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        seed = torch.full_like(self.owner, self.seed)
        words = stream + STREAMS_PER_PARTICLE * self.particle
        return seed, self.owner + self.first_row, torch.full_like(self.owner, line), words
