"""Draws by inverse CDF until the kernel of the same signature lands."""

from __future__ import annotations

import torch

from kernels.philox import STREAM_TOKEN, philox_uniform


def sample_tokens(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    seed: torch.Tensor,
    row: torch.Tensor,
    position: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Symbols, raw and processed log-probabilities; all [rows]."""
    raw = torch.log_softmax(logits.double(), -1)
    scaled = logits.double() / temperature.clamp_min(1e-9)[:, None]
    k = torch.where(top_k > 0, top_k, logits.shape[1]).clamp_max(logits.shape[1]).long()
    ordered = scaled.sort(-1, descending=True).values
    scaled = scaled.masked_fill(scaled < ordered.gather(1, (k - 1)[:, None]), -torch.inf)
    p, order = torch.softmax(scaled, -1).sort(stable=True, dim=-1, descending=True)
    keep = (p.cumsum(-1) - p < top_p[:, None]) & (p >= min_p[:, None] * p[:, :1])
    p = torch.where(keep, p, 0.0)
    cumulative = p.cumsum(-1)
    uniform = philox_uniform(seed, row, position, STREAM_TOKEN, 1).double()
    place = (cumulative <= uniform * cumulative[:, -1:]).sum(-1).clamp_max(logits.shape[1] - 1)
    place = torch.where(temperature == 0, 0, place)[:, None]
    symbol = order.gather(1, place)
    processed = (p / cumulative[:, -1:]).gather(1, place).log()
    return symbol[:, 0], raw.gather(1, symbol)[:, 0].float(), processed[:, 0].float()
