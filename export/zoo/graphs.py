"""The graphs of the reference models: exported once, committed, and taken from there at every build.

Beside the graphs of a model lies ``source.json`` with the SHA-256 of the weights that they hold; graphs of
other weights are exported again. Decoders with a cache are written in milliseconds, so they are not kept.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from export.graph.cached_decoder import build_cached_decoder
from export.graph.onnx import Signature, export_onnx, to_bytes
from export.graph.torchscript import export_torchscript
from export.graph.vjp import cotangents, export_vjp
from export.package.digest import sha256_file
from export.zoo.networks.cached import describe
from export.zoo.networks.transformer import CausalTransformer
from export.zoo.parts import Inputs, Part
from export.zoo.registry import Entry

EXAMPLE_ROWS = 4
Progress = Callable[[str, float], None]


def load_network(entry: Entry) -> nn.Module:
    """The trained network in evaluation mode; FileNotFoundError where it was never trained."""
    network = entry.network()
    network.load_state_dict(load_file(entry.weights))
    return network.eval()


def inputs_of(part: Part, network: nn.Module, rows: int, seed: int) -> Inputs:
    """Seeded inputs of a part in call order; those of a product end with its cotangents."""
    generator = torch.Generator().manual_seed(seed)
    inputs = part.example(rows, generator)
    if part.kind == "vjp":
        inputs |= cotangents(part.of(network), inputs, part.outputs[:-1], generator)
    return inputs


def graph(entry: Entry, name: str, network: nn.Module) -> bytes:
    """A component's graph: the committed one where it holds these weights, else exported now."""
    part = entry.parts[name]
    path = committed(entry, name)
    if part.kind != "cached" and path.exists() and _source(entry) == sha256_file(entry.weights):
        return read_committed(path)
    return export_part(part, network)


def committed(entry: Entry, name: str) -> Path:
    """Where a component's graph is kept; ONNX graphs compressed."""
    suffix = entry.parts[name].suffix
    return entry.graphs / (f"{name}.onnx.xz" if suffix == "onnx" else f"{name}.{suffix}")


def read_committed(path: Path) -> bytes:
    """The graph in a file of ``committed``."""
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def export_part(part: Part, network: nn.Module) -> bytes:
    """Write a component's graph from the network."""
    module = part.of(network)
    if part.kind == "cached":
        assert isinstance(module, CausalTransformer)
        return to_bytes(build_cached_decoder(describe(module)))
    inputs = inputs_of(part, network, EXAMPLE_ROWS, seed=0)
    if part.kind == "torchscript":
        return export_torchscript(module, inputs)
    signature = Signature(inputs, part.outputs, part.dynamic)
    if part.kind == "vjp":
        return to_bytes(export_vjp(module, signature, part.wrt))
    return to_bytes(export_onnx(module, signature))


def commit_graphs(entry: Entry, progress: Progress) -> None:
    """Export all graphs of a model into its folder beside this module."""
    network = load_network(entry)
    kept = [name for name, part in entry.parts.items() if part.kind != "cached"]
    entry.graphs.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(kept):
        progress(f"{entry.name}: exporting {name}", index / len(kept))
        path, content = committed(entry, name), export_part(entry.parts[name], network)
        path.write_bytes(lzma.compress(content, preset=9) if path.suffix == ".xz" else content)
    source = {"weights_sha256": sha256_file(entry.weights), "torch": torch.__version__}
    (entry.graphs / "source.json").write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")


def _source(entry: Entry) -> str | None:
    path = entry.graphs / "source.json"
    if not path.exists():
        return None
    return str(json.loads(path.read_text(encoding="utf-8"))["weights_sha256"])
