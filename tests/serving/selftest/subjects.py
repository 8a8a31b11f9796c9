"""Models under test: closed-form families answered alone, and ways to break their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from export.package.schema import ModelSpec
from serving.families.calibration import Calibration
from serving.families.diffusion.family import DiffusionFamily
from serving.families.drive import Network, run_alone
from serving.families.latent.vae import VaeFamily
from serving.families.request import Request
from serving.families.result import Result
from serving.families.rows import Family
from serving.selftest.subject import Ask, Subject
from tests.analytic.ar.chains import Chain
from tests.analytic.diffusion.gaussian import COVARIANCE, MEAN, GaussianDenoiser, diffusion, package, vectors
from tests.analytic.latent.closed_form import LinearVae

Break = Callable[[Request, Result], Result]
SEED = 5


def alone(
    spec: ModelSpec, family: Family, networks: Mapping[str, Network], breaking: Break | None = None
) -> Subject:
    """A subject whose requests are run alone; ``breaking`` spoils the answers."""
    tables = family.tables({}, 4096, torch.device("cpu"))

    async def ask(request: Request) -> Result:
        result = run_alone(family.program(request), networks, tables)
        return result if breaking is None else breaking(request, result)

    return Subject(spec, family.capabilities(), ask, SEED)


def chain(breaking: Break | None = None, calibration: Calibration | None = None) -> Subject:
    """A Markov chain."""
    model = Chain(calibration=calibration)
    return alone(model.spec, model.family, {"scorer": model.network}, breaking)


def vae(model: LinearVae | None = None, breaking: Break | None = None) -> Subject:
    """A linear-Gaussian VAE."""
    model = model or LinearVae()
    return alone(model.spec, VaeFamily(model.spec), model.networks, breaking)


def gaussian(breaking: Break | None = None) -> Subject:
    """A Gaussian under a flow."""
    section = diffusion("flow")
    spec = package(section, vectors())
    return alone(
        spec, DiffusionFamily(spec), {"denoiser": GaussianDenoiser(section, MEAN, COVARIANCE)}, breaking
    )


def answering(subject: Subject, ask: Ask) -> Subject:
    """The same model, answered by something else."""
    return Subject(subject.spec, subject.capabilities, ask, subject.seed, subject.bitwise)


def uniform(shape: tuple[int, ...], seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Uniform draws."""
    return np.random.default_rng(seed).random(shape)
