"""The candidates: fused graphs, weights in 8 and 4 bits, bfloat16; and what is refused."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from export.assemble.rounded import export_rounded, has_bfloat16
from export.graph.onnx import strip
from export.graph.quantize import Bits, Quantization, quantize_graph
from export.graph.save import save_onnx
from export.package.contracts import scores_itself
from export.package.read import Package
from export.package.schema import Component
from export.package.seeded import seeded_inputs
from export.tune.candidate import Candidate, Form, Make, NotHere

REFUSED = {
    "dynamic-int8": "one scale for a whole batch of activations, so that a request's neighbours would change "
    "its answer; int8 and int4 round the weights alone",
}
EXAMPLE_ROWS = 5
BLOCKS: dict[Bits, tuple[int, ...]] = {8: (32, 64, 128), 4: (32, 64, 128)}


def candidates(package: Package, modules: Mapping[str, nn.Module] | None) -> list[Candidate]:
    """All of them, in the table's order; ``modules``: torch networks by component, where there are any."""
    found = [Candidate("fused", "ONNX Runtime's offline fusions, float32", _fused(package))]
    for bits, blocks in BLOCKS.items():
        for block in blocks:
            why = f"matrices in {bits} bits, a scale for {block} inputs"
            found.append(Candidate(f"int{bits}-{block}", why, _rounded(package, bits, block)))
    why = "products and convolutions in bfloat16, channels last, TorchScript"
    return [*found, Candidate("bfloat16", why, _bfloat16(package, modules))]


def _read(package: Package, component: Component) -> onnx.ModelProto:
    if component.format != "onnx":
        raise NotHere("the graph is TorchScript; export it as ONNX")
    if component.kind != "float32":
        raise NotHere(f"the graph's weights are {component.kind} already")
    return onnx.load(package.path(component.file))


def _written(model: onnx.ModelProto, component: Component, folder: Path, file: str, **changed: Any) -> Form:
    strip(model)
    files = tuple(save_onnx(model, folder, file))
    return Form(component.model_copy(update={"file": file, "variants": (), **changed}), files, folder)


def _rounded(package: Package, bits: Bits, block: int) -> Make:
    def make(name: str, component: Component, folder: Path) -> Form | None:
        model = _read(package, component)
        if not quantize_graph(model, Quantization(bits, block)):
            return None
        file, kind = f"{name}_int{bits}_{block}.onnx", f"int{bits}"
        return _written(model, component, folder, file, weights=kind, device="cpu")

    return make


def _fused(package: Package) -> Make:
    def make(name: str, component: Component, folder: Path) -> Form | None:
        _read(package, component)
        model = _optimized(package.path(component.file))
        return (
            None if model is None else _written(model, component, folder, f"{name}_fused.onnx", device="cpu")
        )

    return make


def _optimized(path: Path) -> onnx.ModelProto | None:
    """The graph with what the runtime's optimizer for transformers fuses on CPUs; None: nothing."""
    try:
        from onnxruntime.transformers.optimizer import optimize_model
    except ImportError as error:
        raise NotHere(f"this onnxruntime brings no optimizer ({error})") from error
    with _silent():
        made = optimize_model(str(path), model_type="bert", opt_level=0, use_gpu=False)
    return made.model if any(made.get_fused_operator_statistics().values()) else None


@contextlib.contextmanager
def _silent() -> Any:
    """It warns of what concerns its own authors."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _bfloat16(package: Package, modules: Mapping[str, nn.Module] | None) -> Make:
    def make(name: str, component: Component, folder: Path) -> Form | None:
        from export.assemble.modules import tensors

        if name == "decoder" and scores_itself(package.spec):
            raise NotHere(
                "ONNX Runtime has no bfloat16 attention for CPUs, and TorchScript no cache in place"
            )
        if modules is None:
            raise NotHere("it is made from the torch module: add --module PACKAGE.MODULE:FUNCTION")
        if not has_bfloat16():
            raise NotHere("this processor multiplies no bfloat16 (avx512_bf16, amx_bf16)")
        inputs = tensors(seeded_inputs(package.spec, name, EXAMPLE_ROWS), EXAMPLE_ROWS)
        file = f"{name}_bfloat16.pt"
        (folder / file).write_bytes(export_rounded(modules[name], inputs))
        changed = {
            "format": "torchscript",
            "precision": "bfloat16",
            "device": "cpu",
            "file": file,
            "variants": (),
        }
        return Form(component.model_copy(update=changed), (file,), folder)

    return make
