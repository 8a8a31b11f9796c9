"""Networks with closed-form truth as torch modules, for TorchScript: written apart from the ONNX graphs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GaussianVelocity(nn.Module):
    """E[e - x0 | x] at x = (1 - s) x0 + s e for x0 ~ N(mean, covariance)."""

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        values, vectors = torch.linalg.eigh(covariance.double())
        self.register_buffer("mean", mean.float())
        self.register_buffer("eigenvalues", values.float())
        self.register_buffer("vectors", vectors.float())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """[rows, D], [rows] -> [rows, D]."""
        mean, eigenvalues, vectors = (self.get_buffer(n) for n in ("mean", "eigenvalues", "vectors"))
        s = t[:, None]
        a = 1.0 - s
        turned = (x - a * mean) @ vectors
        kept = turned / (a * a * eigenvalues + s * s)  # x0 = mean + a lambda kept, e = s kept
        return ((s - a * eigenvalues) * kept) @ vectors.T - mean


class Chain(nn.Module):
    """Logits of a Markov chain; the last line of ``log_laws`` [V + 1, V] is the begin symbol's."""

    def __init__(self, log_laws: Tensor) -> None:
        super().__init__()
        self.register_buffer("log_laws", log_laws.float())

    def forward(self, tokens: Tensor) -> Tensor:
        """[rows, length] -> [rows, length, V]."""
        return nn.functional.embedding(tokens, self.get_buffer("log_laws"))
