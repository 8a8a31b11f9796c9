"""State of the rows of the denoising loop: one tensor per quantity, indexed by slot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from export.package.schema import Condition
from serving.families.diffusion.plan import HISTORY


class RowState:
    """``x`` and the last ``x0`` [capacity, elements] float32; ``known``, ``observed`` once there are any."""

    def __init__(
        self, shape: tuple[int, ...], conditions: Sequence[Condition], capacity: int, device: torch.device
    ) -> None:
        self.elements, self.device = int(np.prod(shape)), device
        size = (capacity, self.elements)
        self.x = torch.zeros(size, device=device)
        self.x0 = [torch.zeros(size, device=device) for _ in range(HISTORY)]  # of 1, 2, 3 lines ago
        self.known: torch.Tensor | None = None
        self.observed: torch.Tensor | None = None
        self.conditions = {c.name: _column(c, capacity, device) for c in conditions}
        self.null = {c.name: 0 if c.null_value is None else c.null_value for c in conditions}

    def allocate_given(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``known`` and ``observed``, allocated by the first row that has given entries."""
        if self.known is None or self.observed is None:
            self.known = torch.zeros_like(self.x)
            self.observed = torch.zeros_like(self.x, dtype=torch.bool)
        return self.known, self.observed


def _column(condition: Condition, capacity: int, device: torch.device) -> torch.Tensor:
    dtype = torch.int64 if condition.kind == "class" else torch.float32
    return torch.zeros((capacity, *condition.shape), dtype=dtype, device=device)
