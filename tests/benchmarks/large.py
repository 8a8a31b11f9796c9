"""The 35.7M-parameter U-Net of google/ddpm-cifar10-32, with random weights, as a package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from export.graph.onnx import Signature, export_onnx, to_bytes
from export.package.write import write_package
from tests.benchmarks.networks.unet import UNet

REPOSITORY = Path("build/bench-models")
NAME = "unet-35m"


def large_package() -> Path:
    """The package's folder; exported at the first use."""
    folder = REPOSITORY / NAME / "1"
    if folder.is_dir():
        return folder
    torch.manual_seed(0)
    inputs = {"x": torch.randn(2, 3, 32, 32), "t": torch.tensor([1.0, 500.0])}
    graph = export_onnx(UNet().eval(), Signature(inputs, ("prediction",)))
    return write_package(specification(), {"denoiser.onnx": to_bytes(graph)}, REPOSITORY, 1)


def specification() -> dict[str, object]:
    """DDPM with linear betas on 32x32 RGB."""
    image = ["rows", 3, 32, 32]
    return {
        "format_version": 1,
        "name": NAME,
        "family": "diffusion",
        "description": "U-Net of google/ddpm-cifar10-32, random weights",
        "license": "Apache-2.0",
        "data": {
            "kind": "image",
            "axes": ["channel", "height", "width"],
            "shape": [3, 32, 32],
            "dtype": "uint8",
            "levels": 256,
            "transform": {"kind": "affine", "scale": [2 / 255], "shift": [-1.0]},
        },
        "components": {
            "denoiser": {
                "format": "onnx",
                "file": "denoiser.onnx",
                "inputs": [
                    {"name": "x", "dtype": "float32", "shape": image},
                    {"name": "t", "dtype": "float32", "shape": ["rows"]},
                ],
                "outputs": [{"name": "prediction", "dtype": "float32", "shape": image}],
            }
        },
        "diffusion": {
            "schedule": {"kind": "vp", "betas": np.linspace(1e-4, 0.02, 1000).tolist()},
            "prediction": "epsilon",
            "time_input": "step",
            "clip_range": [-1.0, 1.0],
        },
        "parity": {"max_abs_error": 0.0, "max_rel_error": 0.0, "inputs": "not compared: random weights"},
    }
