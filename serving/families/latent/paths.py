"""Ways from one latent to another."""

from __future__ import annotations

import torch


def fractions(points: int, device: torch.device) -> torch.Tensor:
    """Evenly spaced times from 0 to 1, both included, float64 [points]."""
    return torch.linspace(0.0, 1.0, points, dtype=torch.float64, device=device)


def lerp(start: torch.Tensor, end: torch.Tensor, points: int) -> torch.Tensor:
    """Straight line: [rows, d], [rows, d] -> float32 [rows, points, d]."""
    t = fractions(points, start.device)[None, :, None]
    a, b = start.double().unsqueeze(1), end.double().unsqueeze(1)
    return ((1.0 - t) * a + t * b).float()


def slerp(start: torch.Tensor, end: torch.Tensor, points: int) -> torch.Tensor:
    """Great-circle weights (Shoemake 1985; White 2016 for latents), which keep the norms that N(0, I) has.

    Nearly parallel, opposite or vanishing latents, which no circle joins, take the straight line.
    """
    t = fractions(points, start.device)[None, :, None]
    a, b = start.double().unsqueeze(1), end.double().unsqueeze(1)
    norms = a.norm(dim=-1, keepdim=True) * b.norm(dim=-1, keepdim=True)
    cosine = (a * b).sum(dim=-1, keepdim=True) / norms.clamp_min(1e-300)
    angle = torch.arccos(cosine.clamp(-1.0, 1.0))
    sine = torch.sin(angle)
    circle = (torch.sin((1.0 - t) * angle) * a + torch.sin(t * angle) * b) / sine.clamp_min(1e-300)
    return torch.where((sine > 1e-6) & (norms > 1e-12), circle, (1.0 - t) * a + t * b).float()


PATHS = {"slerp": slerp, "lerp": lerp}
