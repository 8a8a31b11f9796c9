"""State of the rows of the denoising loop: one tensor per quantity, indexed by slot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.package.schema import Condition
from serving.families.diffusion.plan import HISTORY
from serving.families.request import Array
from serving.families.rows import Slots
from serving.runtime.capture import sent


class RowState:
    """``x`` and the last ``x0`` [capacity, elements] float32; ``known``, ``observed`` once there are any.

    ``nulls`` names the conditions that guidance drops, with the null value [...] of each, or None where rows
    bring their own; ``null`` holds them, [1, ...] or [capacity, ...]. ``threshold_limit`` bounds dynamic
    thresholds from above.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Sequence[Condition],
        capacity: int,
        device: torch.device,
        nulls: Mapping[str, Array | None] | None = None,
        threshold_limit: float = math.inf,
    ) -> None:
        self.elements, self.device = int(np.prod(shape)), device
        self.on_host = device.type == "cpu"  # found once: torch takes microseconds to say so
        size = (capacity, self.elements)
        self.x = torch.zeros(size, device=device)
        self.history = torch.zeros((HISTORY, *size), device=device)
        self.x0 = list(self.history)  # of 1, 2, 3 lines ago
        self.known: torch.Tensor | None = None
        self.observed: torch.Tensor | None = None
        self.conditions = {c.name: _column(c, capacity, device) for c in conditions}
        self.null = {name: _null(self.conditions[name], value) for name, value in (nulls or {}).items()}
        self.threshold_limit = threshold_limit
        self._arrays: dict[int, NDArray[Any]] = {}  # by a quantity's identity: they live as long as this does

    def null_rows(self, name: str) -> NDArray[Any] | None:
        """A condition's null values, [1, ...] or one per slot; None where guidance keeps it."""
        null = self.null.get(name)
        return None if null is None else null.numpy()

    def allocate_given(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``known`` and ``observed``, allocated by the first row that has given entries."""
        if self.known is None or self.observed is None:
            self.known = torch.zeros_like(self.x)
            self.observed = torch.zeros_like(self.x, dtype=torch.bool)
        return self.known, self.observed

    def write(self, column: torch.Tensor, slots: Slots, values: torch.Tensor) -> None:
        """Rows of one quantity. On CPU by NumPy, which starts an operation in a third of torch's time."""
        if self.on_host:
            self.array(column)[slots] = values.numpy()
        else:
            index = sent(torch.from_numpy(slots), self.device)
            column.index_copy_(0, index, sent(values, self.device).to(column.dtype))

    def put(self, column: torch.Tensor, slots: Slots, values: Array) -> None:
        """Rows of one quantity, from an array."""
        if self.on_host:
            self.array(column)[slots] = values
        else:
            self.write(column, slots, torch.from_numpy(np.ascontiguousarray(values)))

    def read(self, column: torch.Tensor, slots: Slots) -> torch.Tensor:
        """A copy of some rows of one quantity, on its device."""
        return column.index_select(0, sent(torch.from_numpy(slots), self.device))

    def array(self, column: torch.Tensor) -> NDArray[Any]:
        """The same memory."""
        found = self._arrays.get(id(column))
        if found is None:
            found = self._arrays[id(column)] = column.numpy()
        return found


def _null(column: torch.Tensor, value: Array | None) -> torch.Tensor:
    if value is None:
        return torch.zeros_like(column)
    return torch.from_numpy(np.array(value)[None]).to(column.device, column.dtype)


def _column(condition: Condition, capacity: int, device: torch.device) -> torch.Tensor:
    dtype = torch.int64 if condition.kind == "class" else torch.float32
    return torch.zeros((capacity, *condition.shape), dtype=dtype, device=device)
