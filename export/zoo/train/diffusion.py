"""Training of the three denoisers: the noise, the score and the flow."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from export.zoo.data import Labelled, digits
from export.zoo.networks.unet import NULL_CLASS, EpsilonDenoiser, FlowDenoiser, ScoreDenoiser
from export.zoo.schedules import SIGMA_DATA, SIGMA_MAX, SIGMA_MIN, STEPS, cosine_betas
from export.zoo.train.loop import Batch, Progress, Recipe, fit, to_model

LABEL_DROPOUT = 0.12


def tensors(data: Labelled) -> Batch:
    """Images in model coordinates and their labels."""
    return to_model(data.images), torch.from_numpy(data.labels)


def drop_labels(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Labels, some of them replaced by the null class (Ho and Salimans 2022)."""
    dropped = torch.rand(labels.shape, generator=generator) < LABEL_DROPOUT
    return torch.where(dropped, NULL_CLASS, labels)


def _noise(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator)


def _stratified(rows: int, generator: torch.Generator) -> Tensor:
    """Uniforms in [0, 1), one in each of ``rows`` equal parts: a batch sees all times. [rows]."""
    return (torch.arange(rows) + torch.rand(rows, generator=generator)) / rows


def epsilon_loss(network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
    """Mean squared error of the noise (Ho et al. 2020, eq. 14), in evaluation mode too."""
    x, labels = batch
    kept = torch.from_numpy(np.cumprod(1.0 - cosine_betas()))
    step = (_stratified(len(x), generator) * STEPS).long().clamp(max=STEPS - 1)
    noise = _noise(x, generator)
    signal = kept[step].sqrt().float()[:, None, None, None]
    sigma = (1.0 - kept[step]).sqrt().float()[:, None, None, None]
    prediction = network(signal * x + sigma * noise, step.float(), labels)
    loss: Tensor = (prediction - noise).square().mean()
    return loss


def flow_loss(network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
    """Conditional flow matching (Lipman et al. 2023, eq. 9) with uniform times."""
    x, labels = batch
    time = _stratified(len(x), generator)
    noise = _noise(x, generator)
    s = time[:, None, None, None]
    prediction = network((1.0 - s) * x + s * noise, time, labels)
    loss: Tensor = (prediction - (noise - x)).square().mean()
    return loss


def score_loss(network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
    """Denoising score matching (Vincent 2011), weighted so that the inner network has a unit target.

    The weight sigma^2 (sigma^2 + sd^2) / sd^2 is that of Karras et al. 2022 (section 5); ln sigma is
    uniform over the schedule.
    """
    (x,) = batch
    level = _stratified(len(x), generator)
    log_sigma = math.log(SIGMA_MIN) + level * (math.log(SIGMA_MAX) - math.log(SIGMA_MIN))
    time = log_sigma.exp()
    sigma = time[:, None, None, None]
    noise = _noise(x, generator)
    error = network(x + sigma * noise, time) + noise / sigma
    weight = sigma.square() * (sigma.square() + SIGMA_DATA**2) / SIGMA_DATA**2
    loss: Tensor = (weight * error.square()).mean()
    return loss


RECIPE = Recipe(steps=4500, rows=64, learning_rate=2e-3, averaging=0.998)


def train_diffusion(progress: Progress) -> nn.Module:
    """DDPM with labels."""
    torch.manual_seed(1)
    network = EpsilonDenoiser()
    return fit(
        network,
        tensors(digits().train),
        lambda b, g: epsilon_loss(network, _dropped(b, g), g),
        RECIPE,
        progress,
    )


def train_flow(progress: Progress) -> nn.Module:
    """Flow matching with labels."""
    torch.manual_seed(2)
    network = FlowDenoiser()
    return fit(
        network, tensors(digits().train), lambda b, g: flow_loss(network, _dropped(b, g), g), RECIPE, progress
    )


def train_score(progress: Progress) -> nn.Module:
    """Score matching without labels."""
    torch.manual_seed(3)
    network = ScoreDenoiser(SIGMA_MIN, SIGMA_MAX, SIGMA_DATA)
    data = tensors(digits().train)[:1]
    return fit(network, data, lambda b, g: score_loss(network, b, g), RECIPE, progress)


def _dropped(batch: Batch, generator: torch.Generator) -> Batch:
    return batch[0], drop_labels(batch[1], generator)
