"""What the kernels replace, as it is commonly written in torch: the other side of every comparison."""

from __future__ import annotations

import torch
from torch.nn import functional

from kernels.denoise import Operands


def denoise_step(given: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    """Guidance, prediction to x0, clip, update, noise, and replacement of known elements."""
    rows = len(given.x)
    columns = given.coefficients.reshape(rows, -1, *(1,) * (given.x.dim() - 1)).unbind(1)
    g, p, q, lo, hi, a, b, _, _, _, d, scale, renoise, _ = columns
    m = given.model_output[:rows].float()
    if given.unconditional_row is not None:
        u = given.model_output[rows:].float()
        m = u + g * (m - u)
    x0 = torch.clamp(p * given.x + q * m, lo, hi)
    following = a * given.x + b * x0 + d * torch.randn_like(given.x)
    if given.known is not None and given.observed is not None:
        known = scale * given.known + renoise * torch.randn_like(given.x)
        following = torch.where(given.observed, known, following)
    return following, x0


def sample_tokens(
    logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sort path: sort, mask by rank and by mass, scatter back, softmax, exponential race, log-softmax."""
    ordered, index = (logits.float() / temperature[:, None]).sort(dim=-1)
    size = logits.shape[1]
    kth = ordered.gather(1, (size - top_k)[:, None])
    ordered = ordered.masked_fill(ordered < kth, -torch.inf)
    mass = ordered.softmax(dim=-1).cumsum(dim=-1)
    removed = mass <= 1 - top_p[:, None]
    removed[:, -1] = False
    masked = torch.empty_like(ordered).scatter_(1, index, ordered.masked_fill(removed, -torch.inf))
    law = masked.softmax(dim=-1)
    token = law.div(torch.empty_like(law).exponential_(1)).argmax(dim=-1)
    return token, logits.log_softmax(dim=-1).gather(1, token[:, None])


def gather_logprobs(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Log-softmax of everything, then the entries."""
    return logits.float().log_softmax(dim=-1).gather(1, ids)


def linear_logprob(hidden: torch.Tensor, weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """All logits, their log-softmax, then the targets."""
    return gather_logprobs(functional.linear(hidden, weight), target[:, None])[:, 0]


def attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, length: torch.Tensor
) -> torch.Tensor:
    """Scaled dot-product attention with a length mask over a static cache."""
    mask = torch.arange(keys.shape[2], device=keys.device)[None] < length[:, None]
    group = query.shape[1] // keys.shape[1]
    grouped = query.reshape(len(query), keys.shape[1], group, -1)
    mixed = functional.scaled_dot_product_attention(grouped, keys, values, mask[:, None, None])
    return mixed.reshape(query.shape)


def discretized_logistic(x: torch.Tensor, mean: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """Mass of the 256 levels of [-1, 1], summed over rows in float64."""
    value, centre, inverse = x.double(), mean.double(), (-log_scale.double()).exp()
    above, below = (value + 1 / 255 - centre) * inverse, (value - 1 / 255 - centre) * inverse
    up, down = functional.logsigmoid(above), functional.logsigmoid(-below)
    inside = up + down + torch.log(-torch.expm1(below - above))
    mass = torch.where(value < -0.999, up, torch.where(value > 0.999, down, inside))
    return mass.sum(dim=1)


def image_to_uint8(x: torch.Tensor) -> torch.Tensor:
    """Scale, round, clamp, convert, channels last."""
    levels = ((x * 127.5) + 127.5).add(0.5).floor().clamp(0, 255)
    return levels.permute(0, 2, 3, 1).to(torch.uint8).contiguous()
