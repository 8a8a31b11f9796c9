"""The loop that all trainings share: Adam, warm-up and cosine decay, averaged weights, one seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Progress = Callable[[str, float], None]
Batch = tuple[Tensor, ...]
Loss = Callable[[Batch, torch.Generator], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train."""

    steps: int
    rows: int = 64  # of a batch
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    averaging: float = 0.995  # decay per step of the exponential moving average
    warm_up: int = 100
    seed: int = 0


def to_model(images: npt.NDArray[np.uint8]) -> Tensor:
    """Levels 0..16 -> float32 in [-1, 1]."""
    return torch.from_numpy(images.astype(np.float32)) / 8.0 - 1.0


def batches(data: Batch, recipe: Recipe, generator: torch.Generator) -> Iterable[Batch]:
    """``recipe.steps`` batches; each row appears once before any appears again."""
    total = data[0].shape[0]
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(recipe.steps):
        if order.numel() < recipe.rows:
            order = torch.cat([order, torch.randperm(total, generator=generator)])
        chosen, order = order[: recipe.rows], order[recipe.rows :]
        yield tuple(part[chosen] for part in data)


def _rate(step: int, recipe: Recipe) -> float:
    warm = min(1.0, (step + 1) / recipe.warm_up)
    return recipe.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * step / recipe.steps)))


def average_into(average: nn.Module, source: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * source, parameter by parameter."""
    with torch.no_grad():
        for mean, value in zip(average.parameters(), source.parameters(), strict=True):
            mean.lerp_(value, 1.0 - decay)


def fit(network: nn.Module, data: Batch, loss: Loss, recipe: Recipe, progress: Progress) -> nn.Module:
    """Minimise ``loss``; returns the averaged network in evaluation mode. Seeds the dropout generator."""
    generator = torch.Generator().manual_seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    average = deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.99), weight_decay=recipe.weight_decay)
    network.train()
    for step, batch in enumerate(batches(data, recipe, generator)):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, recipe)
        value = loss(batch, generator)
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average_into(average, network, min(recipe.averaging, (step + 1) / (step + 10)))
        if step % 50 == 0:
            progress(f"loss {value.item():.4f}", step / recipe.steps)
    return average.eval()
