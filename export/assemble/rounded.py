"""A torch module in bfloat16 as a graph for CPUs: TorchScript, channels last, the rest in float32.

ONNX Runtime has no bfloat16 convolutions on CPU. Products and convolutions are rounded, weights and
activations; what torch's autocast leaves alone (norms' weights, softmax of float32, the embedding of a time)
keeps its precision, which costs nothing and has a third of the error. Inputs and outputs stay float32, so
that the loop around the network loses nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.assemble.cpu_forms import CpuForms
from export.graph.torchscript import export_torchscript

LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # of /proc/cpuinfo; the last is Arm's


class Rounded(nn.Module):
    """A copy of ``module`` under autocast, whose products and convolutions hold bfloat16."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        held: Any = copy.deepcopy(module).eval().requires_grad_(False)
        self.module = held.to(memory_format=torch.channels_last)
        for layer in self.module.modules():
            if isinstance(layer, LAYERS):
                layer.to(torch.bfloat16)

    def forward(self, *arguments: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The module's answer as float32."""
        # without autocast's cache: a trace loses what it holds
        with CpuForms(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            found = self.module(*(_channels_last(value) for value in arguments))
        if isinstance(found, tuple):
            return tuple(value.float().contiguous() for value in found)
        answer: Tensor = found.float().contiguous()
        return answer


def _channels_last(value: Tensor) -> Tensor:
    image = value.dim() == 4 and value.is_floating_point()
    return value.contiguous(memory_format=torch.channels_last) if image else value


def export_rounded(module: nn.Module, inputs: Mapping[str, Tensor]) -> bytes:
    """The bytes of a ``.pt`` file for the CPU; raises what torch's tracer raises."""
    return export_torchscript(Rounded(module), inputs, any_device=False)


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 numbers by itself."""
    info = Path("/proc/cpuinfo")
    return info.exists() and bool(set(info.read_text().split()).intersection(FLAGS))
