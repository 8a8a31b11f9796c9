"""Plain samplers in torch, to look at a network before it is packaged. The server has its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor, nn

from export.graph.cached_decoder import build_cached_decoder
from export.graph.onnx import to_bytes
from export.zoo.networks.cached import describe
from export.zoo.networks.transformer import CausalTransformer
from export.zoo.networks.unet import NULL_CLASS
from export.zoo.schedules import cosine_betas, geometric_sigmas


def to_levels(x: Tensor) -> npt.NDArray[np.uint8]:
    """Model coordinates -> levels 0..16, rounded half up."""
    levels: npt.NDArray[np.uint8] = torch.floor((x + 1.0) * 8.0 + 0.5).clamp(0, 16).byte().numpy()
    return levels


@torch.no_grad()
def sample_diffusion(network: nn.Module, labels: Tensor, steps: int, guidance: float, seed: int) -> Tensor:
    """Ancestral DDPM on a thinned schedule, x_0 clipped; [rows, 1, 8, 8]."""
    generator = torch.Generator().manual_seed(seed)
    kept = np.cumprod(1.0 - cosine_betas())
    times = np.unique(np.linspace(0, 999, steps).round().astype(int))[::-1]
    x = torch.randn(len(labels), 1, 8, 8, generator=generator)
    for index, t in enumerate(times):
        before = kept[times[index + 1]] if index + 1 < len(times) else 1.0
        noise = _guided(network, x, torch.full((len(x),), float(t)), labels, guidance)
        clean = ((x - (1 - kept[t]) ** 0.5 * noise) / kept[t] ** 0.5).clamp(-1, 1)
        alpha = kept[t] / before
        mean = (before**0.5 * (1 - alpha) * clean + alpha**0.5 * (1 - before) * x) / (1 - kept[t])
        spread = ((1 - before) / (1 - kept[t]) * (1 - alpha)) ** 0.5
        x = mean + spread * torch.randn(x.shape, generator=generator)
    return x


@torch.no_grad()
def sample_flow(network: nn.Module, labels: Tensor, steps: int, guidance: float, seed: int) -> Tensor:
    """Euler from noise (s = 1) to data (s = 0); [rows, 1, 8, 8]."""
    x = torch.randn(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    for s in np.linspace(1.0, 0.0, steps + 1)[:-1]:
        x = x - _guided(network, x, torch.full((len(x),), float(s)), labels, guidance) / steps
    return x


@torch.no_grad()
def sample_score(network: nn.Module, rows: int, steps: int, seed: int) -> Tensor:
    """Euler-Maruyama's exact-variance twin (ancestral) on a thinned geometric schedule; [rows, 1, 8, 8]."""
    generator = torch.Generator().manual_seed(seed)
    sigmas = [float(s) for s in geometric_sigmas()[np.linspace(999, 0, steps).round().astype(int)]]
    x = sigmas[0] * torch.randn(rows, 1, 8, 8, generator=generator)
    for now, then in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        score = network(x.float(), torch.full((rows,), float(now)))
        x = x + (now**2 - then**2) * score
        x = x + (then**2 * (now**2 - then**2) / now**2) ** 0.5 * torch.randn(x.shape, generator=generator)
    return x.float()


def sample_tokens(network: CausalTransformer, begin: Tensor, length: int, seed: int) -> Tensor:
    """Ancestral sampling with the cached decoder; ``begin`` int64 [rows]; int64 [rows, length]."""
    generator = torch.Generator().manual_seed(seed)
    session = ort.InferenceSession(
        to_bytes(build_cached_decoder(describe(network))), providers=["CPUExecutionProvider"]
    )
    shape, rows = network.shape, len(begin)
    size = (rows, shape.heads, shape.max_length, shape.head_dim)
    pasts = [value.name for value in session.get_inputs() if value.name.startswith("past")]
    cache = {name: np.zeros(size, np.float32) for name in pasts}
    tokens = [begin[:, None]]
    for position in range(length):
        last = np.full(rows, position, np.int32)
        total = np.array(position + 1, np.int32)
        lengths = {"seqlens_k": last, "total_sequence_length": total}
        logits, *present = session.run(None, {"tokens": tokens[-1].numpy(), **lengths, **cache})
        cache = dict(zip(pasts, present, strict=True))
        probabilities = torch.from_numpy(logits[:, 0]).softmax(-1)
        tokens.append(torch.multinomial(probabilities, 1, generator=generator))
    return torch.cat(tokens[1:], dim=1)


@torch.no_grad()
def sample_pixels(network: nn.Module, rows: int, seed: int) -> Tensor:
    """Ancestral sampling from a masked convolutional network; int64 [rows, 64]."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(rows, 64, dtype=torch.int64)
    for position in range(64):
        probabilities = network(tokens)[:, position].softmax(-1)
        tokens[:, position] = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    return tokens


def _guided(network: nn.Module, x: Tensor, t: Tensor, labels: Tensor, guidance: float) -> Tensor:
    conditional: Tensor = network(x, t, labels)
    if guidance == 1.0:
        return conditional
    free: Tensor = network(x, t, torch.full_like(labels, NULL_CLASS))
    return free + guidance * (conditional - free)
