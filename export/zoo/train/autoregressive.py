"""Training of the three models that predict one symbol after another."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.zoo.data import END_SYMBOL, SYMBOLS_MAX, digits, text
from export.zoo.networks.pixelcnn import PixelCnn
from export.zoo.networks.transformer import DIGITS, TEXT, CausalTransformer
from export.zoo.train.diffusion import drop_labels
from export.zoo.train.loop import Batch, Progress, Recipe, fit

BEGIN_OFFSET = 17
PADDING = -100


def digit_tokens(images: np.ndarray, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and targets int64 [rows, 64]; the class (10 = none) selects the begin symbol 17 .. 27."""
    targets = torch.from_numpy(images.reshape(len(images), -1).astype(np.int64))
    return torch.cat([labels[:, None] + BEGIN_OFFSET, targets[:, :-1]], dim=1), targets


def text_tokens(rows: tuple[bytes, ...]) -> tuple[Tensor, Tensor]:
    """Inputs and targets int64 [rows, 256]; a row begins and ends with symbol 256; targets padded -100."""
    inputs = torch.full((len(rows), SYMBOLS_MAX), END_SYMBOL, dtype=torch.int64)
    targets = torch.full((len(rows), SYMBOLS_MAX), PADDING, dtype=torch.int64)
    for index, row in enumerate(rows):
        symbols = torch.tensor([*row, END_SYMBOL])
        targets[index, : len(symbols)] = symbols
        inputs[index, 1 : len(symbols)] = symbols[:-1]
    return inputs, targets


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean nats per symbol; ``logits`` [rows, length, vocabulary], ``targets`` [rows, length]."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PADDING)


def _next_symbol(network: nn.Module, batch: Batch, _: torch.Generator) -> Tensor:
    length = int((batch[1] != PADDING).sum(1).max())
    return cross_entropy(network(batch[0][:, :length]), batch[1][:, :length])


def _digit_loss(network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
    inputs = batch[0].clone()
    inputs[:, 0] = drop_labels(inputs[:, 0] - BEGIN_OFFSET, generator) + BEGIN_OFFSET
    return cross_entropy(network(inputs), batch[1])


def train_digits_autoregressive(progress: Progress) -> nn.Module:
    """Causal transformer over the pixels, class-conditional."""
    torch.manual_seed(4)
    network = CausalTransformer(DIGITS)
    data = digit_tokens(digits().train.images, torch.from_numpy(digits().train.labels))
    recipe = Recipe(steps=1800, rows=64, learning_rate=2e-3, weight_decay=0.1, averaging=0.99)
    return fit(network, data, lambda b, g: _digit_loss(network, b, g), recipe, progress)


def train_digits_pixelcnn(progress: Progress) -> nn.Module:
    """Gated PixelCNN, unconditional."""
    torch.manual_seed(5)
    network = PixelCnn()
    targets = digit_tokens(digits().train.images, torch.from_numpy(digits().train.labels))[1]
    recipe = Recipe(steps=1000, rows=64, learning_rate=3e-3, weight_decay=0.02, averaging=0.99)
    return fit(network, (targets,), lambda b, _: cross_entropy(network(b[0]), b[0]), recipe, progress)


def train_text_autoregressive(progress: Progress) -> nn.Module:
    """Byte-level causal transformer."""
    torch.manual_seed(6)
    network = CausalTransformer(TEXT)
    recipe = Recipe(steps=1100, rows=24, learning_rate=2.5e-3, weight_decay=0.05, averaging=0.98)
    return fit(network, text_tokens(text().train), lambda b, g: _next_symbol(network, b, g), recipe, progress)
