"""Choosing particles by weight."""

from __future__ import annotations

import torch


def choose(log_weights: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Index of a particle per draw: log-weights [rows, particles], uniforms [rows, n] -> int64 [rows, n].

    Multinomial by inverse distribution, each draw by its own uniform. A row without any weight takes its
    first particle.
    """
    weights = torch.softmax(torch.nan_to_num(log_weights.double(), nan=-torch.inf, neginf=-1e300), dim=1)
    edges = weights.cumsum(dim=1)
    index = torch.searchsorted(edges, uniforms.double() * edges[:, -1:], right=True)
    return index.clamp_max(log_weights.shape[1] - 1)
