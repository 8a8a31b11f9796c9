"""Training of the autoencoder and the variational autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from export.zoo.data import digits
from export.zoo.networks.latent import Autoencoder, Vae
from export.zoo.train.loop import Batch, Progress, Recipe, fit, to_model

HALF_LEVEL = 1.0 / 16.0  # in model coordinates
TINY = 1e-12


def log_discretized_logistic(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """ln P(level), elementwise; the outer bins reach to infinity (Salimans et al. 2017, eq. 2)."""
    rate = torch.exp(-log_scale)
    upper, lower = rate * (x + HALF_LEVEL - mean), rate * (x - HALF_LEVEL - mean)
    inside = torch.log((torch.sigmoid(upper) - torch.sigmoid(lower)).clamp(min=TINY))
    log_p = torch.where(x < -1.0 + HALF_LEVEL, logsigmoid(upper), inside)
    return torch.where(x > 1.0 - HALF_LEVEL, logsigmoid(-lower), log_p)


def negative_elbo(network: Vae, x: Tensor, generator: torch.Generator) -> Tensor:
    """-ELBO in nats per row with one latent each (Kingma and Welling 2014, eq. 10); [rows]."""
    mean, log_variance = network.encoder(x)
    latent = mean + torch.exp(0.5 * log_variance) * torch.randn(mean.shape, generator=generator)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(1)
    cost: Tensor = divergence - log_discretized_logistic(x, *network.decoder(latent)).flatten(1).sum(1)
    return cost


def log_evidence(network: Vae, x: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """IWAE bound on ln p(x) in nats (Burda et al. 2016, eq. 8); [rows]."""
    mean, log_variance = network.encoder(x)
    weights = []
    for _ in range(samples):
        noise = torch.randn(mean.shape, generator=generator)
        latent = mean + torch.exp(0.5 * log_variance) * noise
        log_ratio = 0.5 * (noise.square() - latent.square() + log_variance).sum(1)
        weights.append(log_ratio + log_discretized_logistic(x, *network.decoder(latent)).flatten(1).sum(1))
    stacked = torch.stack(weights)
    return torch.logsumexp(stacked, 0) - torch.log(torch.tensor(float(samples)))


def _warm_elbo(network: Vae, batch: Batch, generator: torch.Generator) -> Tensor:
    return negative_elbo(network, batch[0], generator).mean() / 64.0


def train_digits_vae(progress: Progress) -> nn.Module:
    """VAE with discretised logistic pixels, plain ELBO."""
    torch.manual_seed(7)
    network = Vae()
    data = (to_model(digits().train.images),)
    recipe = Recipe(steps=2500, rows=64, learning_rate=2e-3, weight_decay=0.05, averaging=0.998)
    return fit(network, data, lambda b, g: _warm_elbo(network, b, g), recipe, progress)


def train_digits_autoencoder(progress: Progress) -> nn.Module:
    """Autoencoder, squared error, with a little latent noise so that nearby latents decode alike."""
    torch.manual_seed(8)
    network = Autoencoder()

    def denoising(batch: Batch, generator: torch.Generator) -> Tensor:
        latent = network.encoder(batch[0])
        noise = 0.1 * torch.randn(latent.shape, generator=generator)
        error = (network.decoder(latent + noise) - batch[0]).square().mean()
        loss: Tensor = error + 1e-3 * latent.square().mean()
        return loss

    recipe = Recipe(steps=3000, rows=64, learning_rate=2e-3, weight_decay=0.01, averaging=0.998)
    return fit(network, (to_model(digits().train.images),), denoising, recipe, progress)
