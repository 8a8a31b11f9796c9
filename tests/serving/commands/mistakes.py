"""Packages of the zoo's trained networks, each exported with exactly one mistake."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.adapt.steps import Scale, Transpose
from export.model import (
    Autoencoder,
    Autoregressive,
    BeginCondition,
    BeginSymbol,
    Bernoulli,
    ClassCondition,
    CosineBetas,
    Diffusion,
    DiscretizedLogistic,
    Gan,
    Gaussian,
    GeometricSigmas,
    Graph,
    Image,
    LinearBetas,
    Model,
    StraightPath,
    Tokens,
    Vae,
)
from tests.serving.commands import graphs
from tests.serving.commands.graphs import EXP, NEG, SHUFFLE, SIGMOID, SOFTMAX, UNSHUFFLE, graph

DATA = Image(1, 8, 8, levels=17, data_range=(-1, 1))
ZERO_ONE = Image(1, 8, 8, levels=17, data_range=(0, 1))
LEVELS = Image(1, 8, 8, levels=17, data_range=(0, 16))
BLOCKS = Image(4, 4, 4, levels=17, data_range=(-1, 1))
NOTHING = (Scale((0.0,)),)
LABEL = ClassCondition("label", 10, null_value=10)
Build = Callable[[Path], Model]


@dataclass(frozen=True)
class Mistake:
    """``build`` makes the model, with files in a folder; ``named``: words of the verdict."""

    name: str
    build: Build
    named: str
    data: str = "digits"


def ddpm(to: Path, net: Graph | None = None, **changed: Any) -> Diffusion:
    """The noise predictor as it is, but for ``changed``."""
    known: dict[str, Any] = {
        "denoiser": net or graph(to, "digits-diffusion", "denoiser"), "schedule": CosineBetas(1000),
        "prediction": "epsilon", "time": "step", "data": DATA, "conditions": (LABEL,),
    }  # fmt: skip
    return Diffusion(**{**known, **changed})


def flow(to: Path, **changed: Any) -> Diffusion:
    """The flow network likewise."""
    known: dict[str, Any] = {
        "denoiser": graph(to, "digits-flow", "denoiser"), "schedule": StraightPath(),
        "prediction": "flow", "time": "fraction", "data": DATA, "conditions": (LABEL,),
    }  # fmt: skip
    return Diffusion(**{**known, **changed})


def score(to: Path, steps: Any = (), **changed: Any) -> Diffusion:
    """The score network likewise."""
    known: dict[str, Any] = {
        "denoiser": graph(to, "digits-score", "denoiser", after_prediction=steps),
        "schedule": GeometricSigmas(0.01, 10.0), "prediction": "score", "time": "sigma", "data": DATA,
    }  # fmt: skip
    return Diffusion(**{**known, **changed})


def vae(to: Path, encoder: Any = None, decoder: Any = None, **changed: Any) -> Vae:
    """The VAE likewise; ``encoder``, ``decoder``: steps by value."""
    known: dict[str, Any] = {
        "encoder": graph(to, "digits-vae", "encoder", **(encoder or {})),
        "decoder": graph(to, "digits-vae", "decoder", **(decoder or {})),
        "posterior": "mean_logvar", "latent_shape": (16,), "observation": DiscretizedLogistic("log_scale"),
        "data": DATA,
    }  # fmt: skip
    return Vae(**{**known, **changed})


def binary_vae(to: Path, outputs: Any) -> Vae:
    """Over binarised pixels, from a decoder that ends in a sigmoid."""
    return Vae(
        graph(to, "digits-vae", "encoder", before_x=(Scale((2.0,), (-1.0,)),)),
        graphs.odds(to, SIGMOID),
        posterior="mean_logvar",
        latent_shape=(16,),
        observation=Bernoulli(outputs),
        data=Image(1, 8, 8, levels=2, data_range=(0, 1)),
    )


def autoencoder(to: Path, encoder: Any = None, decoder: Any = None, **changed: Any) -> Autoencoder:
    """An autoencoder: the GAN's encoder and its generator; ``encoder``, ``decoder``: steps by value."""
    halves = (
        graph(to, "digits-gan", "encoder", **(encoder or {})),
        graph(to, "digits-gan", "generator", **(decoder or {})),
    )
    return Autoencoder(*halves, latent_shape=(32,), **{"data": DATA, **changed})


def blocks(to: Path) -> Autoencoder:
    """The same on four channels of 4x4, which are the image's 2x2 blocks."""
    return autoencoder(to, encoder={"before_x": SHUFFLE}, decoder={"after_x": UNSHUFFLE}, data=BLOCKS)


def blocks_last(to: Path) -> Autoencoder:
    """The same, held as [rows, 4, 4, C], which is not said."""
    encoder = {"before_x": (Transpose((0, 3, 1, 2)), *SHUFFLE)}
    decoder = {"after_x": (*UNSHUFFLE, Transpose((0, 2, 3, 1)))}
    return autoencoder(to, encoder=encoder, decoder=decoder, data=BLOCKS)


def gan(to: Path, judge: Any = (), **changed: Any) -> Gan:
    """The GAN likewise; ``judge``: steps after the discriminator."""
    known: dict[str, Any] = {
        "generator": graph(to, "digits-gan", "generator"), "encoder": graph(to, "digits-gan", "encoder"),
        "discriminator": graph(to, "digits-gan", "discriminator", after_logit=judge),
        "latent_shape": (32,), "scores": "logits", "data": DATA,
    }  # fmt: skip
    return Gan(**{**known, **changed})


def pixels(to: Path, **changed: Any) -> Autoregressive:
    """The transformer over pixels likewise."""
    known: dict[str, Any] = {
        "network": graph(to, "digits-autoregressive", "scorer"), "order": "raster", "vocabulary": 17,
        "begin": BeginCondition("label", 17), "any_length": True, "data": Image(1, 8, 8, levels=17),
        "conditions": (LABEL,),
    }  # fmt: skip
    return Autoregressive(**{**known, **changed})


def pixelcnn(to: Path, *after: Any) -> Autoregressive:
    """The PixelCNN likewise."""
    net = graph(to, "digits-pixelcnn", "scorer", after_logits=after)
    return Autoregressive(net, "raster", 17, begin="none", data=Image(1, 8, 8, levels=17))


def text(to: Path, begin: int) -> Autoregressive:
    """The transformer over bytes, begun by another symbol."""
    data = Tokens(257, 256, variable=True, tokenizer="bytes")
    net = graph(to, "text-autoregressive", "scorer")
    return Autoregressive(
        net, "raster", 257, begin=BeginSymbol(begin), end_symbol=256, any_length=True, data=data
    )


RIGHT: tuple[Mistake, ...] = (
    Mistake("ddpm", ddpm, "", "labelled"),
    Mistake("ddpm-v", lambda to: ddpm(to, graphs.predicts(to, "v"), prediction="v"), ""),
    Mistake("flow", flow, ""),
    Mistake("score", score, ""),
    Mistake("vae", vae, ""),
    Mistake("vae-binary", lambda to: binary_vae(to, "probabilities"), "", "binary"),
    Mistake("autoencoder", autoencoder, ""),
    Mistake("autoencoder-blocks", blocks, "", "blocks"),
    Mistake("gan", gan, ""),
    Mistake("pixels", pixels, "", "labelled"),
    Mistake("pixelcnn", pixelcnn, ""),
    Mistake("text", lambda to: text(to, 256), "", "text"),
)

MISTAKES: tuple[Mistake, ...] = (
    Mistake("v-for-epsilon", lambda to: ddpm(to, graphs.predicts(to, "v")), "v taken for the noise"),
    Mistake("x0-for-epsilon", lambda to: ddpm(to, graphs.predicts(to, "sample")),
            "x0 (sample) taken for the noise"),
    Mistake("epsilon-for-v", lambda to: ddpm(to, prediction="v"), "the noise (epsilon) taken for v"),
    Mistake("sign-of-flow", lambda to: flow(to, prediction="flow_reversed"),
            "e - x0 (flow) taken for x0 - e"),
    Mistake("sign-of-score", lambda to: score(to, (NEG,)), "the sign of the score is turned"),
    Mistake("range-ddpm", lambda to: ddpm(to, data=ZERO_ONE), "pixels in [-1, 1] taken for [0, 1]"),
    Mistake("range-levels", lambda to: flow(to, data=LEVELS), "pixels in [-1, 1] taken for [0, 16]"),
    Mistake("range-vae", lambda to: vae(to, data=ZERO_ONE), "pixels in [-1, 1] taken for [0, 1]"),
    Mistake("range-autoencoder", lambda to: autoencoder(to, data=ZERO_ONE),
            "pixels in [-1, 1] taken for [0, 1]"),
    Mistake("range-gan", lambda to: gan(to, data=ZERO_ONE), "pixels in [-1, 1] taken for [0, 1]"),
    Mistake("time-fraction", lambda to: ddpm(to, time="fraction"), "time step taken for fraction"),
    Mistake("time-sigma", lambda to: flow(to, time="sigma"), "time fraction taken for sigma"),
    Mistake("time-log-sigma", lambda to: score(to, time="log_sigma", schedule=GeometricSigmas(1.1, 10.0)),
            "time sigma taken for log_sigma"),
    Mistake("time-reversed", lambda to: flow(to, time="reversed_fraction"),
            "time fraction taken for reversed_fraction"),
    Mistake("schedule", lambda to: ddpm(to, schedule=LinearBetas(1000)), "another schedule: cosine_betas"),
    Mistake("null-is-a-class", lambda to: ddpm(to, conditions=(ClassCondition("label", 10, null_value=3),)),
            "guidance without a null: null_value 3", "labelled"),
    Mistake("null-untrained", lambda to: ddpm(to, graphs.untrained_null(to)),
            "guidance without a null: null_value 10", "labelled"),
    Mistake("labels-shifted", lambda to: ddpm(to, graphs.shifted_labels(to)), "labels are off by -1",
            "labelled"),
    Mistake("logvar-for-logstd", lambda to: vae(to, posterior="mean_logstd"),
            "a log-variance taken for a log-deviation"),
    Mistake("std-for-logvar", lambda to: vae(to, {"after_log_variance": (Scale((0.5,)), EXP)}),
            "a deviation taken for a log-variance"),
    Mistake("scale-for-log-scale", lambda to: vae(to, None, {"after_log_scale": (EXP,)}),
            "a scale taken for its logarithm"),
    Mistake("probabilities-for-logits", lambda to: binary_vae(to, "logits"), "probabilities taken for logits",
            "binary"),
    Mistake("law-for-logits", lambda to: pixelcnn(to, SOFTMAX), "probabilities taken for logits"),
    Mistake("sigmoid-for-logits", lambda to: gan(to, (SIGMOID,)), "probabilities taken for logits"),
    Mistake("discriminator-turned", lambda to: gan(to, (NEG,)), "the sign of the discriminator is turned"),
    Mistake("collapsed", lambda to: vae(to, {"after_mean": NOTHING, "after_log_variance": NOTHING}),
            "the posterior has collapsed"),
    Mistake("hwc-file", blocks, "channels last (HWC) taken for channels first: the data file", "blocks-hwc"),
    Mistake("hwc-network", blocks_last, "(HWC) taken for channels first: the network", "blocks"),
    Mistake("columns-for-rows", autoencoder, "height and width are swapped", "turned"),
    Mistake("order-columns", lambda to: pixels(to, order="columns"), "another order: raster"),
    Mistake("order-reversed", lambda to: pixels(to, order=tuple(range(63, -1, -1))), "another order: raster"),
    Mistake("begin-offset", lambda to: pixels(to, begin=BeginCondition("label", 16)),
            "wrong begin symbol: offset 17 fits", "labelled"),
    Mistake("begin-symbol", lambda to: text(to, 101), "wrong begin symbol", "text"),
    Mistake("pixels-turned", pixelcnn, "dark taken for bright", "inverted"),
    Mistake("fixed-std", lambda to: vae(to, observation=Gaussian(math.exp(-7.0))), "a standard deviation of"),
)  # fmt: skip
