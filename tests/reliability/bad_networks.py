"""Packages whose network misbehaves when a row asks it to: latent[0] above 50 is the trigger.

Warm-up never comes near it, and Decode takes any latents, so a request chooses whether its row is bad.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper, parser
from torch import nn

from export.graph.interface import named, onnx_component, torchscript_component
from export.package.write import write_package
from tests.analytic.served.packages import vector, write_onnx

TRIGGER = 50.0
BAD, GOOD = 99.0, 0.5
_HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'
_SIGNATURE = "bad (float[rows, 2] latent) => (float[rows, 2] x)"

# Every graph gives x = latent for good rows.
_NAN = f"""{_SIGNATURE} {{
    headroom = Sub(trigger, latent)
    root = Sqrt(headroom)
    nothing = Sub(root, root)
    x = Add(latent, nothing)
}}"""
_RAISES = f"""{_SIGNATURE} {{
    first = Gather<axis = 1>(latent, zero)
    over = Greater(first, trigger)
    index = Cast<to = 7>(over)
    far = Mul(index, million)
    picked = Gather<axis = 0>(one_row, far)
    nothing = Sub(picked, picked)
    x = Add(latent, nothing)
}}"""
_MEMORY = f"""{_SIGNATURE} {{
    worst = ReduceMax<keepdims = 0>(latent)
    over = Greater(worst, trigger)
    flag = Cast<to = 7>(over)
    size = Mul(flag, terabytes)
    shape = Add(size, one)
    flat = Reshape(shape, vector)
    filled = ConstantOfShape(flat)
    total = ReduceSum<keepdims = 0>(filled)
    nothing = Sub(total, total)
    x = Add(latent, nothing)
}}"""
_CONSTANTS = {
    "trigger": torch.tensor(TRIGGER),
    "zero": torch.tensor(0),
    "million": torch.tensor(1_000_000),
    "one_row": torch.zeros(1, 2),
    "terabytes": torch.tensor(1 << 44),
    "one": torch.tensor(1),
    "vector": torch.tensor([1]),
}


class Hangs(nn.Module):
    """x = latent; a bad row makes the loop endless."""

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """[rows, 2] to [rows, 2]."""
        x = latent + 0.0
        while bool((x[:, 0] > 50.0).any()):
            x = x + 1.0
        return x


class Raises(nn.Module):
    """x = latent; a bad row is an exception."""

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """[rows, 2] to [rows, 2]."""
        if bool((latent[:, 0] > 50.0).any()):
            raise RuntimeError("this row is bad")
        return latent + 0.0


def write_all(models: Path) -> None:
    """One autoencoder per way to misbehave, each with a decoder that does."""
    for name, text in (("nan", _NAN), ("raises", _RAISES), ("memory", _MEMORY)):
        networks = {"encoder": _identity(), "decoder": _graph(text)}
        write_onnx(models, name, "autoencoder", {"latent_shape": (2,)}, networks, vector(2))
    for name, module in (("script-hangs", Hangs()), ("script-raises", Raises())):
        _write_script(models, name, module)


def _graph(text: str) -> onnx.ModelProto:
    model = parser.parse_model(_HEADER + text)
    used = {name for node in model.graph.node for name in node.input}
    for name, value in _CONSTANTS.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(value.numpy(), name))
    onnx.checker.check_model(model)
    return model


def _identity() -> onnx.ModelProto:
    return parser.parse_model(
        _HEADER + "same (float[rows, 2] x) => (float[rows, 2] latent) { latent = Identity(x) }"
    )


def _write_script(models: Path, name: str, module: nn.Module) -> None:
    latent = {"latent": torch.zeros(2, 2)}
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(module), script)
    files: dict[str, Path | bytes] = {
        "decoder.pt": script.getvalue(),
        "encoder.onnx": _identity().SerializeToString(),
    }
    components: dict[str, Any] = {
        "encoder": onnx_component(_identity(), "encoder.onnx"),
        "decoder": torchscript_component(latent, named(("x",), latent["latent"]), "decoder.pt"),
    }
    spec = {
        "format_version": 1,
        "name": name,
        "family": "autoencoder",
        "description": "misbehaves when asked to",
        "license": "Apache-2.0",
        "data": vector(2),
        "components": components,
        "autoencoder": {"latent_shape": (2,)},
        "parity": {"max_abs_error": 0.0, "max_rel_error": 0.0, "inputs": "none: written by hand"},
    }
    write_package(spec, files, models, 1)
