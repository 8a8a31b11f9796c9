"""The reference models as packages: weights and graphs from this folder, checked, then written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import torch
from torch import nn

from export.graph.interface import named, onnx_component, torchscript_component
from export.package.digest import sha256_file
from export.package.schema import Component, Parity
from export.package.write import write_package
from export.zoo.checks import check_part, worst
from export.zoo.data import SPLIT_SEED
from export.zoo.graphs import Progress, graph, inputs_of, load_network
from export.zoo.parity import recorded
from export.zoo.parts import Part
from export.zoo.registry import ENTRIES, LABEL, LICENSE, Entry

VERSION = 1


def build_all(
    to: Path, names: Sequence[str] | None, progress: Progress, *, replace: bool = True
) -> list[Path]:
    """Build several models (None: all nine) under ``to``; ``progress(message, fraction done)``."""
    chosen = list(ENTRIES) if names is None else list(names)
    built = []
    for index, name in enumerate(chosen):

        def within(message: str, fraction: float, start: int = index) -> None:
            progress(message, (start + fraction) / len(chosen))

        built.append(build(name, to, within, replace=replace))
    return built


def build(name: str, to: Path, progress: Progress, *, replace: bool = True) -> Path:
    """Write ``to/NAME/1`` and return it; its calibration, where there is one, goes to ``to/NAME``.

    Raises KeyError (no such model) and PackageError (graphs that differ from the network; writing).
    """
    entry = ENTRIES[name]
    progress(f"{name}: loading weights", 0.0)
    network = load_network(entry)
    with TemporaryDirectory() as scratch:
        files, components, parities = _components(entry, network, Path(scratch), progress)
        draft = _draft(entry, components, recorded(name, worst(parities)))
        progress(f"{name}: writing", 0.95)
        target = write_package(draft, files, to, VERSION, replace=replace)
    if entry.calibration.exists():
        shutil.copyfile(entry.calibration, target.parent / f"calibration-{VERSION}.json")
    progress(f"{name}: done", 1.0)
    return target


def _components(
    entry: Entry, network: nn.Module, scratch: Path, progress: Progress
) -> tuple[dict[str, Path], dict[str, dict[str, Any]], list[Parity]]:
    """Every graph as a checked file in ``scratch``, and its entry in ``model.yaml``."""
    files: dict[str, Path] = {}
    components: dict[str, dict[str, Any]] = {}
    parities: list[Parity] = []
    for index, (name, part) in enumerate(entry.parts.items()):
        progress(f"{entry.name}: checking {name}", (index + 0.5) / (len(entry.parts) + 1))
        file = f"{name}.{part.suffix}"
        path = scratch / file
        path.write_bytes(graph(entry, name, network))
        components[name] = describe_part(part, network, path)
        parities.append(check_part(part, network, path, Component.model_validate(components[name])))
        files[file] = path
    return files, components, parities


def describe_part(part: Part, network: nn.Module, path: Path) -> dict[str, Any]:
    """The ``components`` entry of a graph file."""
    if part.kind != "torchscript":
        return onnx_component(onnx.load(path), path.name)
    inputs = inputs_of(part, network, 2, seed=0)
    with torch.no_grad():
        outputs = named(part.outputs, part.of(network)(*inputs.values()))
    return torchscript_component(inputs, outputs, path.name)


def _draft(entry: Entry, components: dict[str, dict[str, Any]], parity: Parity) -> dict[str, Any]:
    return {
        "format_version": 1,
        "name": entry.name,
        "family": entry.family,
        "description": entry.description,
        "license": LICENSE,
        "data": entry.space,
        "conditions": [LABEL] if entry.conditional else [],
        "components": components,
        entry.family: entry.section(),
        "parity": parity.model_dump(),
        "provenance": {
            "source": "pxserve reference zoo",
            "data": entry.data,
            "split_seed": str(SPLIT_SEED),
            "weights_sha256": sha256_file(entry.weights),
        },
    }
