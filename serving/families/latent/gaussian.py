"""Gaussians over flat latents: the prior N(0, I), and diagonal ones per row."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from serving.families.latent.evaluator import row_sum

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def prior_log_prob(z: torch.Tensor) -> torch.Tensor:
    """ln N(z; 0, I) of latents [lanes, d]; float64 [lanes]."""
    return row_sum(-0.5 * z.double().square() - HALF_LOG_2PI)


@dataclass(frozen=True)
class DiagonalGaussian:
    """``mean`` and ``std`` float64 [n, d], one Gaussian per row or per lane."""

    mean: torch.Tensor
    std: torch.Tensor

    @classmethod
    def from_log_variance(cls, mean: torch.Tensor, log_variance: torch.Tensor) -> DiagonalGaussian:
        """From an encoder's outputs [n, *latent]."""
        flat = (mean.flatten(1).double(), log_variance.flatten(1).double())
        return cls(flat[0], torch.exp(0.5 * flat[1]))

    @classmethod
    def prior(cls, rows: int, dims: int, device: torch.device) -> DiagonalGaussian:
        """N(0, I) for every row."""
        shape = (rows, dims)
        return cls(
            torch.zeros(shape, dtype=torch.float64, device=device),
            torch.ones(shape, dtype=torch.float64, device=device),
        )

    def of(self, owner: torch.Tensor) -> DiagonalGaussian:
        """The Gaussians of the given rows, one per lane."""
        return DiagonalGaussian(self.mean[owner], self.std[owner])

    def widened(self, factor: float) -> DiagonalGaussian:
        """Standard deviations times a factor, though not beyond the prior's."""
        wide = torch.maximum(self.std, (factor * self.std).clamp_max(1.0))
        return DiagonalGaussian(self.mean, wide)

    def transport(self, noise: torch.Tensor) -> torch.Tensor:
        """Draws mean + std * noise, float32: what networks see is what densities are taken at."""
        return (self.mean + self.std * noise.double()).float()

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        """ln N(z; mean, std^2) float64 [n]."""
        standard = (z.double() - self.mean) / self.std
        return row_sum(-0.5 * standard.square() - self.std.log() - HALF_LOG_2PI)

    def kl_to_prior(self) -> torch.Tensor:
        """KL to N(0, I) in nats, float64 [n] (Kingma and Welling 2014, appendix B)."""
        variance = self.std.square()
        return row_sum(0.5 * (self.mean.square() + variance - 1.0) - self.std.log())
