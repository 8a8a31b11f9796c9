"""The figures on the model cards, measured on rows that no model saw; plain torch, no server.

``pxserve-server evaluate`` measures likelihoods by the engine; these are the same quantities by the
shortest way, so that a card can be checked where there is only this package.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from export.zoo.classifier import classify, coverage
from export.zoo.data import digits, text
from export.zoo.networks.latent import Autoencoder, Gan, Vae
from export.zoo.networks.transformer import CausalTransformer
from export.zoo.networks.unet import NULL_CLASS
from export.zoo.train import autoregressive, diffusion, latent, sampling
from export.zoo.train.loop import to_model

BITS = 1.0 / math.log(2.0)
ROWS = 200  # of samples
Figures = dict[str, float]


def _test() -> Tensor:
    return to_model(digits().test.images)


def _labels(rows: int = ROWS) -> Tensor:
    return torch.arange(10).repeat(rows // 10)


def _none(rows: int = ROWS) -> Tensor:
    return torch.full((rows,), NULL_CLASS)


def _covered(images: npt.NDArray[np.uint8]) -> Figures:
    """The rarest and the commonest class among unconditional samples."""
    shares = coverage(images)
    return {"rarest class, share": float(shares.min()), "commonest class, share": float(shares.max())}


def _recognised(images: npt.NDArray[np.uint8], labels: Tensor) -> Figures:
    return {"samples recognised as their class": float((classify(images) == labels.numpy()).mean())}


def _images(tokens: Tensor) -> npt.NDArray[np.uint8]:
    return tokens.reshape(-1, 1, 8, 8).numpy().astype(np.uint8)


def _loss(loss: Callable[..., Tensor], network: nn.Module, batch: tuple[Tensor, ...]) -> float:
    """Mean over eight draws of times and noise."""
    draws = [loss(network, batch, torch.Generator().manual_seed(seed)).item() for seed in range(8)]
    return float(np.mean(draws))


def _diffusion(network: nn.Module) -> Figures:
    found = sampling.to_levels(sampling.sample_diffusion(network, _labels(), 50, 1.0, seed=0))
    free = sampling.to_levels(sampling.sample_diffusion(network, _none(), 50, 1.0, seed=1))
    loss = _loss(diffusion.epsilon_loss, network, diffusion.tensors(digits().test))
    return {"denoising loss": loss, **_recognised(found, _labels()), **_covered(free)}


def _flow(network: nn.Module) -> Figures:
    found = sampling.to_levels(sampling.sample_flow(network, _labels(), 50, 1.0, seed=0))
    free = sampling.to_levels(sampling.sample_flow(network, _none(), 50, 1.0, seed=1))
    loss = _loss(diffusion.flow_loss, network, diffusion.tensors(digits().test))
    return {"flow matching loss": loss, **_recognised(found, _labels()), **_covered(free)}


def _score(network: nn.Module) -> Figures:
    free = sampling.to_levels(sampling.sample_score(network, ROWS, 100, seed=0))
    loss = _loss(diffusion.score_loss, network, (_test(),))
    return {"score matching loss, weighted": loss, **_covered(free)}


def _pixels(network: nn.Module) -> Figures:
    assert isinstance(network, CausalTransformer)
    test = digits().test
    inputs, targets = autoregressive.digit_tokens(test.images, torch.from_numpy(test.labels))
    free_inputs = inputs.clone()
    free_inputs[:, 0] = autoregressive.BEGIN_OFFSET + NULL_CLASS
    begin = autoregressive.BEGIN_OFFSET + torch.cat([_labels(), _none()])
    samples = _images(sampling.sample_tokens(network, begin, 64, seed=0))
    return {
        "bits/dim, class given": BITS * autoregressive.cross_entropy(network(inputs), targets).item(),
        "bits/dim, no class": BITS * autoregressive.cross_entropy(network(free_inputs), targets).item(),
        **_recognised(samples[:ROWS], _labels()),
        **_covered(samples[ROWS:]),
    }


def _pixelcnn(network: nn.Module) -> Figures:
    targets = torch.from_numpy(digits().test.images.reshape(-1, 64).astype(np.int64))
    nats = autoregressive.cross_entropy(network(targets), targets).item()
    return {"bits/dim": BITS * nats, **_covered(_images(sampling.sample_pixels(network, ROWS, seed=0)))}


def _text(network: nn.Module) -> Figures:
    inputs, targets = autoregressive.text_tokens(text().test)
    return {"bits/symbol": BITS * autoregressive.cross_entropy(network(inputs), targets).item()}


def _autoencoder(network: nn.Module) -> Figures:
    assert isinstance(network, Autoencoder)
    found = network(_test())
    kept = classify(sampling.to_levels(found)) == digits().test.labels
    error = (found - _test()).square().mean().sqrt().item()
    return {"error, root mean square, levels": 8.0 * error, "reconstructions of the same class": kept.mean()}


def _vae(network: nn.Module) -> Figures:
    assert isinstance(network, Vae)
    generator = torch.Generator().manual_seed(0)
    elbo = np.mean([latent.negative_elbo(network, _test(), generator).mean().item() for _ in range(10)])
    evidence = latent.log_evidence(network, _test(), 200, generator).mean().item()
    mean, _ = network.decoder(torch.randn(ROWS, 16, generator=generator))
    return {
        "bits/dim, ELBO": BITS * float(elbo) / 64,
        "bits/dim, IWAE with 200 samples": -BITS * evidence / 64,
        **_covered(sampling.to_levels(mean)),
    }


def _gan(network: nn.Module) -> Figures:
    assert isinstance(network, Gan)
    z = torch.randn(ROWS, network.generator.latent, generator=torch.Generator().manual_seed(0))
    found = network.generator(network.encoder(_test()))
    error = (found - _test()).square().mean().sqrt().item()
    kept = (classify(sampling.to_levels(found)) == digits().test.labels).mean()
    return {
        **_covered(sampling.to_levels(network.generator(z))),
        "inversion error, root mean square, levels": 8.0 * error,
        "inversions of the same class": float(kept),
    }


FIGURES: dict[str, Callable[[nn.Module], Figures]] = {
    "digits-diffusion": _diffusion,
    "digits-autoregressive": _pixels,
    "digits-pixelcnn": _pixelcnn,
    "text-autoregressive": _text,
    "digits-autoencoder": _autoencoder,
    "digits-vae": _vae,
    "digits-gan": _gan,
    "digits-score": _score,
    "digits-flow": _flow,
}


def figures(name: str, network: nn.Module) -> Figures:
    """What the card of ``name`` says of a trained network, on the test rows; 1 to 20 s."""
    with torch.no_grad():
        return FIGURES[name](network.eval())
