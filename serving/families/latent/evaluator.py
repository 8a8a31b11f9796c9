"""Network evaluations of one request, in calls of bounded size, with conditions and a count per row."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import TypeVar

import numpy as np
import torch

from export.package.schema import ModelSpec
from serving.families.request import Request
from serving.families.rows import Call, Tensors, Yield

T = TypeVar("T")
Steps = Generator[Yield, Tensors, T]

# Bounds what one call holds in memory; the engine shares each call's network runs with other requests.
ROWS_PER_CALL = 1024


class Evaluator:
    """Runs components for lanes of a request; every lane belongs to a row (its ``owner``)."""

    def __init__(self, spec: ModelSpec, request: Request, device: torch.device) -> None:
        self.spec = spec
        self.rows = request.rows
        self.device = device
        self.evaluations = np.zeros(request.rows, np.int64)  # [rows]
        self._conditions = {
            name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in request.conditions.items()
        }

    def reduced(
        self,
        component: str,
        inputs: Mapping[str, torch.Tensor],
        owner: torch.Tensor,
        function: Callable[[Tensors, slice], torch.Tensor],
    ) -> Steps[torch.Tensor]:
        """``function(outputs, lanes)`` of each call, concatenated; so that outputs never pile up."""
        pieces = []
        for start in range(0, len(owner), ROWS_PER_CALL):
            part = slice(start, min(start + ROWS_PER_CALL, len(owner)))
            outputs = yield from self._call(component, inputs, owner, part)
            pieces.append(function(outputs, part))
        return torch.cat(pieces)

    def outputs(
        self, component: str, inputs: Mapping[str, torch.Tensor], owner: torch.Tensor
    ) -> Steps[dict[str, torch.Tensor]]:
        """All outputs of all lanes."""
        pieces = []
        for start in range(0, len(owner), ROWS_PER_CALL):
            part = slice(start, min(start + ROWS_PER_CALL, len(owner)))
            pieces.append((yield from self._call(component, inputs, owner, part)))
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def _call(
        self, component: str, inputs: Mapping[str, torch.Tensor], owner: torch.Tensor, part: slice
    ) -> Steps[dict[str, torch.Tensor]]:
        rows = owner[part].cpu()
        known = {spec.name for spec in self.spec.components[component].inputs}
        arguments = {name: value[part] for name, value in inputs.items()}
        arguments |= {name: value[rows] for name, value in self._conditions.items() if name in known}
        np.add.at(self.evaluations, rows.numpy(), 1)
        outputs = yield Call(component, arguments)
        return {name: value.to(self.device) for name, value in outputs.items()}


def row_sum(values: torch.Tensor) -> torch.Tensor:
    """Sum over all but the first axis, [n]; one axis at a time.

    A row alone must add up as it does among others: torch splits a reduction to one number over its
    threads, and one along the last axis never.
    """
    while values.dim() > 1:
        values = values.sum(dim=-1)
    return values
