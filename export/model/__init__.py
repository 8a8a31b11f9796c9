"""Trained models, described so that nothing has to be guessed: what to pass to ``export``.

from export.model import ClassCondition, CosineBetas, Diffusion, Image

Diffusion(unet, CosineBetas(1000), "epsilon", "step",
          data=Image(1, 28, 28, levels=256, data_range=(-1, 1)),
          conditions=(ClassCondition("label", 10, null_value=10),),
          license="MIT").export(to="models", name="my-digits")
"""

from export.model.autoencoder import Autoencoder
from export.model.autoregressive import Autoregressive, BeginCondition, BeginSymbol
from export.model.base import Model
from export.model.conditions import ClassCondition, VectorCondition
from export.model.diffusion import Diffusion
from export.model.gan import Gan
from export.model.network import Graph, Network
from export.model.observations import Bernoulli, Categorical, DiscretizedLogistic, Gaussian
from export.model.schedules import (
    AlphasCumprod,
    Betas,
    CosineBetas,
    GeometricSigmas,
    LinearBetas,
    ScaledLinearBetas,
    Sigmas,
    StraightPath,
)
from export.model.spaces import Image, Tokens, Vector
from export.model.vae import Vae

__all__ = [
    "AlphasCumprod",
    "Autoencoder",
    "Autoregressive",
    "BeginCondition",
    "BeginSymbol",
    "Bernoulli",
    "Betas",
    "Categorical",
    "ClassCondition",
    "CosineBetas",
    "Diffusion",
    "DiscretizedLogistic",
    "Gan",
    "Gaussian",
    "GeometricSigmas",
    "Graph",
    "Image",
    "LinearBetas",
    "Model",
    "Network",
    "ScaledLinearBetas",
    "Sigmas",
    "StraightPath",
    "Tokens",
    "Vae",
    "Vector",
    "VectorCondition",
]
