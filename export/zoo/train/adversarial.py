"""Training of the GAN: relativistic pairing with gradient penalties, then an encoder.

The relativistic loss couples each fake with a real image, so that leaving a mode out costs; penalties
on the gradients at real and fake images make it converge (Huang et al. 2024, "The GAN is dead; long
live the GAN!", eq. 2 and 4; Mescheder et al. 2018 for the penalties).
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from export.zoo.data import digits
from export.zoo.networks.latent import Gan
from export.zoo.train.loop import Progress, Recipe, average_into, batches, fit, to_model

PENALTY = 1.0
RECIPE = Recipe(steps=3000, rows=64, learning_rate=1e-3, averaging=0.998)
ENCODER_RECIPE = Recipe(steps=2000, rows=64, learning_rate=2e-3, averaging=0.995)


def _penalty(logit: Tensor, x: Tensor) -> Tensor:
    """Mean squared norm of the discriminator's gradient."""
    (gradient,) = torch.autograd.grad(logit.sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def discriminator_loss(network: Gan, real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic logistic loss plus R1 and R2."""
    real, fake = real.requires_grad_(), fake.detach().requires_grad_()
    judged_real, judged_fake = network.discriminator(real), network.discriminator(fake)
    penalties = _penalty(judged_real, real) + _penalty(judged_fake, fake)
    loss: Tensor = softplus(judged_fake - judged_real).mean() + 0.5 * PENALTY * penalties
    return loss


def generator_loss(network: Gan, real: Tensor, fake: Tensor) -> Tensor:
    """The same pairing with the sides exchanged."""
    loss: Tensor = softplus(network.discriminator(real) - network.discriminator(fake)).mean()
    return loss


def _decay(optimizer: torch.optim.Optimizer, step: int, recipe: Recipe) -> None:
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * min(1.0, 2.0 * (1.0 - step / recipe.steps) + 0.02)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _play(network: Gan, progress: Progress) -> nn.Module:
    """Alternate both players; returns the averaged generator."""
    generator = torch.Generator().manual_seed(RECIPE.seed)
    average = deepcopy(network.generator)
    judge = torch.optim.Adam(network.discriminator.parameters(), betas=(0.0, 0.99))
    maker = torch.optim.Adam(network.generator.parameters(), betas=(0.0, 0.99))
    data = (to_model(digits().train.images),)
    for step, (real,) in enumerate(batches(data, RECIPE, generator)):
        _decay(judge, step, RECIPE)
        _decay(maker, step, RECIPE)
        latent = torch.randn(2 * len(real), network.generator.latent, generator=generator)
        loss = discriminator_loss(network, real, network.generator(latent[: len(real)]))
        _step(judge, loss)
        _step(maker, generator_loss(network, real.detach(), network.generator(latent[len(real) :])))
        average_into(average, network.generator, min(RECIPE.averaging, (step + 1) / (step + 10)))
        if step % 50 == 0:
            progress(f"discriminator loss {loss.item():.4f}", 0.9 * step / RECIPE.steps)
    return average


def _invert(network: Gan, progress: Progress) -> nn.Module:
    """Fit the encoder: recover latents of generated images, and reconstruct real ones."""
    for parameter in network.generator.parameters():
        parameter.requires_grad_(False)
    latent_size = network.generator.latent

    def loss(batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        latent = torch.randn(len(batch[0]), latent_size, generator=generator)
        recovered = network.encoder(network.generator(latent))
        encoded = network.encoder(batch[0])
        reconstruction = (network.generator(encoded) - batch[0]).square().mean()
        size = 0.01 * encoded.square().mean()
        cost: Tensor = (recovered - latent).square().mean() + 2.0 * reconstruction + size
        return cost

    data = (to_model(digits().train.images),)
    return fit(network.encoder, data, loss, ENCODER_RECIPE, lambda m, f: progress(m, 0.9 + 0.1 * f))


def train_digits_gan(progress: Progress) -> nn.Module:
    """Generator (averaged), discriminator and encoder."""
    torch.manual_seed(9)
    network = Gan()
    average = _play(network, progress)
    assert isinstance(average, type(network.generator))
    network.generator = average
    network.encoder = _invert(network, progress)  # type: ignore[assignment]
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return network.eval()
