"""A decoder's TorchScript graph for CUDA: traced, saved, and compared with the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from export.graph.decoder import Decoder
from export.graph.scripted_decoder import ScriptedDecoder, component, example, takes
from export.graph.torchscript import export_torchscript
from export.package.errors import PackageError, Reason
from export.package.operators import register_operators
from export.package.schema import Component, Parity
from export.transformers.check import Reference, check_exact, check_rounded


def scripted_graph(
    decoder: Decoder, element: torch.dtype, path: Path, wanted: Reference
) -> tuple[dict[str, Any], Parity]:
    """Write ``path``; its ``components`` entry and its parity.

    Raises PackageError: UNSUPPORTED_NETWORK (heads that the attention operator does not take),
    BAD_VALUE (the kernels are not installed), PARITY.
    """
    _check(decoder, path)
    module = ScriptedDecoder(decoder, element)
    path.write_bytes(export_torchscript(module, example(decoder, element)))
    entry = component(decoder, element, path.name) | {"device": "cuda"}
    graph = Component.model_validate(entry)
    if element == torch.float32:
        return entry, check_exact(path, graph, wanted)
    if element == torch.float16:
        return entry, check_rounded(path, graph, wanted, "seeded tokens, float16")
    return entry, _widened(decoder, path, wanted)


def _check(decoder: Decoder, path: Path) -> None:
    if not register_operators():
        raise PackageError(
            Reason.BAD_VALUE,
            path,
            "--torchscript needs pxserve's kernels, which are not installed",
            "pip install pxserve-server, or leave --torchscript out",
        )
    if not takes(decoder):
        raise PackageError(
            Reason.UNSUPPORTED_NETWORK,
            path,
            f"--torchscript: heads of {decoder.head_dim} channels; the kernel takes multiples of 16",
            "Leave --torchscript out: the ONNX graph takes any size",
        )


def _widened(decoder: Decoder, path: Path, wanted: Reference) -> Parity:
    """NumPy has no bfloat16: its weights, rounded, in float32 arithmetic."""
    module = ScriptedDecoder(decoder, torch.bfloat16).float()
    beside = path.with_name("widened.pt")
    beside.write_bytes(export_torchscript(module, example(decoder, torch.float32)))
    try:
        graph = Component.model_validate(component(decoder, torch.float32, beside.name))
        said = "seeded tokens, weights rounded to bfloat16, float32 arithmetic"
        return check_rounded(beside, graph, wanted, said)
    finally:
        beside.unlink()
