"""The packages of this folder, and the truths that they are held to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from export.graph.interface import named, onnx_component, torchscript_component
from export.graph.torchscript import export_torchscript
from export.package.write import write_package
from tests.analytic.ar.chains import START, STEP
from tests.analytic.diffusion.gaussian import COVARIANCE, FLOW, GEOMETRIC, LINEAR, MEAN
from tests.analytic.latent.closed_form import SIGMA, B, LinearVae, W
from tests.analytic.served import graphs
from tests.analytic.served.scripts import Chain, GaussianVelocity

Floats = NDArray[np.float64]
Section = Mapping[str, Any]

MEAN3 = np.array([0.3, -0.5, 0.1])
COVARIANCE3 = np.array([[0.25, 0.18, 0.05], [0.18, 0.16, 0.02], [0.05, 0.02, 0.09]])
SCALE, SHIFT = 2.0, -0.4  # of gaussian-flow: model value = 2 data value - 0.4
FLOW_MEAN, FLOW_COVARIANCE = (MEAN - SHIFT) / SCALE, COVARIANCE / SCALE**2
WIDE = 20  # dimensions: beyond those whose trace is summed exactly
WIDE_MEAN = np.linspace(-0.5, 0.5, WIDE)
WIDE_COVARIANCE = 0.25 * 0.6 ** np.abs(np.subtract.outer(np.arange(WIDE), np.arange(WIDE)))
WEIGHTS = np.array([0.3, 0.7])
MEANS = np.array([[-0.6, 0.2], [0.5, -0.3]])
COVARIANCES = np.array([[[0.04, 0.018], [0.018, 0.02]], [[0.05, -0.02], [-0.02, 0.03]]])
BASIS = np.linalg.qr(W)[0]
LOG_LAWS = np.log(np.vstack([STEP, START]))
EXACT_VAE, WRONG_VAE = LinearVae(), LinearVae(inflation=1.5, shift=0.1)


def write_all(models: Path) -> None:
    """Every package of this folder."""
    _diffusion(models)
    _scripts(models)
    _chain(models)
    for name, model in (("vae-exact", EXACT_VAE), ("vae-wrong", WRONG_VAE)):
        _vae(models, name, model)
    _gan(models)
    _autoencoder(models)


def alphas(schedule: Any = LINEAR) -> tuple[Floats, Floats]:
    """(alpha, sigma) of every training step of a variance-preserving schedule."""
    kept = np.cumprod(1.0 - np.asarray(schedule.betas, np.float64))
    return np.sqrt(kept), np.sqrt(1.0 - kept)


def _diffusion(models: Path) -> None:
    alpha, sigma = alphas()
    power = alpha[:, None, None] ** 2 * COVARIANCE3 + sigma[:, None, None] ** 2 * np.eye(3)
    gains = sigma[:, None, None] * np.linalg.inv(power)
    table = graphs.table_denoiser(gains, alpha[:, None] * (gains @ MEAN3))
    vp = {"schedule": LINEAR.model_dump(), "prediction": "epsilon", "time_input": "step"}
    ve = {"schedule": GEOMETRIC.model_dump(), "prediction": "score", "time_input": "log_sigma"}
    edm = {
        "schedule": GEOMETRIC.model_dump(), "prediction": "edm", "time_input": "quarter_log_sigma",
        "input_scale": "edm", "sigma_data": 0.5,
    }  # fmt: skip
    write_onnx(models, "gaussian-vp", "diffusion", vp, {"denoiser": table}, vector(3))
    for name, kind, section in (("gaussian-ve", "ve", ve), ("gaussian-edm", "edm", edm)):
        network = graphs.gaussian_denoiser(kind, MEAN, COVARIANCE)
        write_onnx(models, name, "diffusion", section, {"denoiser": network}, vector(2))
    _flows(models)


def _flows(models: Path) -> None:
    moved = vector(2) | {"transform": {"kind": "affine", "scale": (SCALE,), "shift": (SHIFT,)}}
    networks = {
        "gaussian-flow": (graphs.gaussian_denoiser("flow", MEAN, COVARIANCE), moved),
        "gaussian-wide": (graphs.gaussian_denoiser("flow", WIDE_MEAN, WIDE_COVARIANCE), vector(WIDE)),
        "coupled-flow": (graphs.coupled_denoiser(2), vector(2)),
        "mixture-flow": (graphs.mixture_denoiser(WEIGHTS, MEANS, COVARIANCES), vector(2)),
    }
    for name, (network, data) in networks.items():
        write_onnx(models, name, "diffusion", FLOW_SECTION, {"denoiser": network}, data)


FLOW_SECTION: Section = {
    "schedule": FLOW.model_dump(),
    "prediction": "flow",
    "time_input": "fraction",
    "default_sampler": "euler",
}
CHAIN_SECTION: Section = {"vocabulary": 4, "begin_symbol": 4}
TOKENS = {"kind": "tokens", "axes": ("time",), "shape": (8,), "dtype": "int32", "levels": 4}


def _scripts(models: Path) -> None:
    """The same mathematics, written a second time as torch modules."""
    moved = vector(2) | {"transform": {"kind": "affine", "scale": (SCALE,), "shift": (SHIFT,)}}
    flow = GaussianVelocity(torch.from_numpy(MEAN), torch.from_numpy(COVARIANCE))
    inputs = {"x": torch.zeros(2, 2), "t": torch.full((2,), 0.5)}
    script = {"denoiser": (flow, inputs, ("prediction",))}
    _write_scripts(models, "gaussian-flow-script", "diffusion", FLOW_SECTION, script, moved)
    chain = {"scorer": (Chain(torch.from_numpy(LOG_LAWS)), {"tokens": torch.zeros(2, 8).long()}, ("logits",))}
    _write_scripts(models, "chain-script", "autoregressive", CHAIN_SECTION, chain, TOKENS)


def _chain(models: Path) -> None:
    scorer = {"scorer": graphs.chain_scorer(LOG_LAWS)}
    write_onnx(models, "chain", "autoregressive", CHAIN_SECTION, scorer, TOKENS)


def _vae(models: Path, name: str, model: LinearVae) -> None:
    variance = model.posterior_variance
    gain = model.weights * variance / SIGMA**2
    networks = {
        "encoder": graphs.posterior_encoder(gain, model.shift - B @ gain, np.log(variance * model.inflation)),
        "decoder": graphs.affine("latent", "mean", model.weights.T, B),
    }
    section = {"latent_shape": (2,), "observation": {"kind": "gaussian", "scale": SIGMA}}
    write_onnx(models, name, "vae", section, networks, vector(4))


def _gan(models: Path) -> None:
    networks = {
        "generator": graphs.affine("latent", "x", W.T, B),
        "generator_vjp": graphs.affine_product("x_cotangent", W.T, B),
    }
    write_onnx(models, "linear-gan", "gan", {"latent_shape": (2,)}, networks, vector(4))


def _autoencoder(models: Path) -> None:
    networks = {
        "encoder": graphs.affine("x", "latent", BASIS, -B @ BASIS),
        "decoder": graphs.affine("latent", "x", BASIS.T, B),
    }
    write_onnx(models, "pca-autoencoder", "autoencoder", {"latent_shape": (2,)}, networks, vector(4))


def vector(size: int) -> dict[str, Any]:
    """Rows of real numbers."""
    return {"kind": "vector", "axes": ("element",), "shape": (size,), "dtype": "float32"}


def write_onnx(
    models: Path, name: str, family: str, section: Section, networks: Mapping[str, onnx.ModelProto],
    data: Section,
) -> Path:  # fmt: skip
    """Version 1 of a package of ONNX graphs."""
    components = {key: onnx_component(network, f"{key}.onnx") for key, network in networks.items()}
    files: dict[str, Path | bytes] = {
        f"{key}.onnx": network.SerializeToString() for key, network in networks.items()
    }
    return write_package(_spec(name, family, section, data, components), files, models, 1)


Script = tuple[torch.nn.Module, Mapping[str, torch.Tensor], tuple[str, ...]]


def _write_scripts(
    models: Path, name: str, family: str, section: Section, scripts: Mapping[str, Script], data: Section
) -> Path:
    components, files = {}, {}
    for key, (module, inputs, names) in scripts.items():
        outputs = named(names, module(*inputs.values()))
        components[key] = torchscript_component(inputs, outputs, f"{key}.pt")
        files[f"{key}.pt"] = export_torchscript(module, inputs)
    return write_package(_spec(name, family, section, data, components), files, models, 1)


def _spec(
    name: str, family: str, section: Section, data: Section, components: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "format_version": 1,
        "name": name,
        "family": family,
        "description": "closed form",
        "license": "Apache-2.0",
        "data": dict(data),
        "components": dict(components),
        family: dict(section),
        "parity": {"max_abs_error": 0.0, "max_rel_error": 0.0, "inputs": "none: written by hand"},
    }
