"""A package from a folder: weights streamed into graphs, every graph compared, then published at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch

from export.graph.cached_decoder import build_cached_decoder
from export.graph.decoder import Decoder
from export.graph.interface import onnx_component
from export.graph.onnx import to_bytes
from export.graph.quantize import Bits, Quantization
from export.graph.store import Beside
from export.package.errors import PackageError, Reason
from export.package.schema import TOKENIZER_FILE, Component, Parity
from export.package.write import staging, write_package
from export.transformers import draft
from export.transformers.check import Reference, check_exact, check_rounded, reference
from export.transformers.folder import Source, read_folder
from export.transformers.scripted import scripted_graph
from export.transformers.symbols import Symbols, symbols_of, tokenizer_file
from export.transformers.weights import Weights

Progress = Callable[[str, float], None]
ELEMENTS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
BITS: dict[str, Bits] = {"int8": 8, "int4": 4}
ROTATIONS = ("cosines", "sines")  # as export.graph.cached_decoder calls them
MOST_TOKENS = 4096  # of a row, where --max-length does not say; caches grow with it


@dataclass(frozen=True)
class Wish:
    """What the caller asked for; None: as the folder says. ``graphs``: the first is served by default."""

    to: Path
    name: str | None = None
    version: int = 1
    license: str | None = None
    description: str | None = None
    max_length: int | None = None
    begin: int | None = None
    graphs: tuple[str, ...] = ("float32",)
    block: int | None = None
    replace: bool = False
    scripted: str | None = None  # precision of a TorchScript graph for CUDA beside them


@dataclass
class Making:
    """A package on its way."""

    source: Source
    decoder: Decoder
    symbols: Symbols
    folder: Path
    block: int | None
    files: dict[str, Path | bytes] = field(default_factory=dict)


def build(folder: Path, wish: Wish, progress: Progress) -> Path:
    """Write the package and return its folder; raises PackageError with what to do."""
    progress("reading the folder", 0.0)
    source = read_folder(folder)
    weights = Weights(folder, source.entry.prefix)
    length = _length(source, wish.max_length)
    decoder = source.entry.describe(source.config, weights, length)
    weights.check_all_taken(source.entry.ignored)
    symbols = symbols_of(source, wish.begin, decoder.vocabulary)
    name, licensed = draft.model_name(folder, wish.name), draft.license_of(folder, wish.license)
    _check_disk(wish.to, weights, wish.graphs)
    progress("running the source", 0.05)
    wanted = reference(source, symbols.begin, decoder.vocabulary, length)
    with tokenizer_file(source) as tokenizer, staging(wish.to, name) as stage:
        making = Making(source, decoder, symbols, stage, wish.block)
        if tokenizer is not None:
            making.files[TOKENIZER_FILE] = tokenizer
        component, parity = _component(making, wish, wanted, progress)
        progress("publishing", 0.95)
        said = {"name": name, "license": licensed, "description": wish.description or _described(source)}
        written = _draft(making, said, component, parity)
        return write_package(written, making.files, wish.to, wish.version, replace=wish.replace)


def _length(source: Source, asked: int | None) -> int:
    if asked is not None and not 1 <= asked <= source.positions:
        raise PackageError(
            Reason.BAD_VALUE,
            source.folder,
            f"--max-length {asked}, but the network has {source.positions} positions",
            f"Give 1 .. {source.positions}",
        )
    return asked or min(source.positions, MOST_TOKENS)


def _check_disk(to: Path, weights: Weights, graphs: tuple[str, ...]) -> None:
    """Refuse before anything is written where the disk is too small."""
    share = {"float32": 1.0, "float16": 0.5, "bfloat16": 0.5, "int8": 0.55, "int4": 0.45}
    need = int(weights.float_bytes * sum(share[graph] for graph in graphs))
    there = next(parent for parent in (to, *to.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if need > free:
        raise PackageError(
            Reason.WRITE_FAILED,
            to,
            f"the graphs need about {need / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free",
            "Make room, or write to another disk",
        )


def _described(source: Source) -> str:
    return f"{source.architecture} from the transformers folder {source.folder.resolve().name}"


def _component(
    making: Making, wish: Wish, wanted: Reference, progress: Progress
) -> tuple[dict[str, Any], Parity]:
    """The component ``decoder`` with its variants, and the parity of its first graph."""
    entries = []
    for index, graph in enumerate(wish.graphs):
        progress(f"writing and comparing {graph}", 0.1 + 0.75 * index / len(wish.graphs))
        entries.append(_graph(making, graph, wanted, suffix="" if index == 0 else f"_{graph}"))
    if wish.scripted:
        progress(f"tracing {wish.scripted} for CUDA", 0.85)
        entries = [{**entry, "device": "cpu"} if entry["device"] == "any" else entry for entry in entries]
        entries.append(_scripted(making, wish.scripted, wanted))
    parity = entries[0].pop("parity")
    variants = [{**entry, "parity": entry["parity"].model_dump()} for entry in entries[1:]]
    return {**entries[0], "variants": variants}, parity


def _scripted(making: Making, precision: str, wanted: Reference) -> dict[str, Any]:
    path = making.folder / "decoder.pt"
    entry, parity = scripted_graph(making.decoder, ELEMENTS[precision], path, wanted)
    making.files[path.name] = path
    return {**entry, "parity": parity}


def _graph(making: Making, graph: str, wanted: Reference, suffix: str) -> dict[str, Any]:
    """Write one graph with its weights beside it, and compare it with the source."""
    file = f"decoder{suffix}.onnx"
    model = _written(making, graph, making.folder / f"{file}.data")
    path = making.folder / file
    path.write_bytes(to_bytes(model))
    onnx.checker.check_model(str(path))
    making.files |= {file: path, f"{file}.data": making.folder / f"{file}.data"}
    entry = onnx_component(model, file)
    precision = "float32" if graph in BITS else graph
    how = {"precision": precision, "weights": graph if graph in BITS else "same"}
    return {**entry, **how, "device": _device(graph), "parity": _compared(making, graph, path, entry, wanted)}


def _written(making: Making, graph: str, data: Path) -> onnx.ModelProto:
    quantization = Quantization(BITS[graph], making.block) if graph in BITS else None
    with Beside(data) as store:
        return build_cached_decoder(
            making.decoder,
            selective=True,
            element=ELEMENTS.get(graph, torch.float32),
            store=store,
            quantization=quantization,
        )


def _device(graph: str) -> str:
    """CUDA has the attention operator in 16 bits only, the CPU not in bfloat16."""
    return {"float16": "any", "bfloat16": "cuda"}.get(graph, "cpu")


def _compared(making: Making, graph: str, path: Path, entry: dict[str, Any], wanted: Reference) -> Parity:
    if graph == "bfloat16":
        return _compared_widened(making, wanted)
    component = Component.model_validate(entry)
    if graph == "float32":
        return check_exact(path, component, wanted)
    return check_rounded(path, component, wanted, f"seeded tokens, {graph}")


def _compared_widened(making: Making, wanted: Reference) -> Parity:
    """bfloat16 cannot run here: its weights, rounded, in float32 arithmetic."""
    data = making.folder / "widened.onnx.data"
    rounded = _Rounded(data)
    with rounded as store:
        model = build_cached_decoder(making.decoder, selective=True, element=torch.float32, store=store)
    path = making.folder / "widened.onnx"
    path.write_bytes(to_bytes(model))
    component = Component.model_validate(onnx_component(model, path.name))
    try:
        said = "seeded tokens, weights rounded to bfloat16, float32 arithmetic (this CPU has no bfloat16)"
        return check_rounded(path, component, wanted, said)
    finally:
        path.unlink()
        data.unlink()


class _Rounded(Beside):
    """Weights with the precision of bfloat16 in float32; tables of rotation are arithmetic, not weights."""

    def add(self, name: str, value: torch.Tensor) -> onnx.TensorProto:
        """See Store."""
        rounded = value.dtype == torch.float32 and name not in ROTATIONS
        return super().add(name, value.to(torch.bfloat16).float() if rounded else value)


def _draft(making: Making, said: dict[str, str], component: dict[str, Any], parity: Parity) -> dict[str, Any]:
    source, decoder = making.source, making.decoder
    text = TOKENIZER_FILE in making.files
    return {
        "format_version": 1,
        **said,
        "family": "autoregressive",
        "data": draft.data_space(source, decoder),
        "components": {"decoder": component},
        "autoregressive": draft.section(source, decoder, making.symbols, text=text),
        "parity": parity.model_dump(),
        "provenance": draft.provenance(source, making.symbols),
    }
