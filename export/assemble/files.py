"""Components from files: which kind of file it is, and the refusal of those that are no graphs."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from export.assemble.made import Made, Order
from export.model.base import Part
from export.model.network import Graph
from export.package.errors import PackageError, Reason

TORCHSCRIPT_SUFFIXES = (".pt", ".pth", ".pts", ".ts", ".torchscript", ".jit")


def try_file(name: str, part: Part, order: Order) -> None:
    """Look at the file, and run it where it is TorchScript, before any graph is written (as below)."""
    assert isinstance(part.network, Graph)
    kind = kind_of(part.network.file)
    if order.vjp and part.product is not None:
        raise PackageError(
            Reason.BAD_SOURCE,
            part.network.file,
            f"a gradient graph of {name!r} is asked for, but a file of this kind cannot be differentiated",
            "Export from the torch module (pxserve-export module), or leave out --vjp",
        )
    if kind == "torchscript":
        from export.assemble.script_file import try_script

        try_script(name, part, order)


def file_components(name: str, part: Part, order: Order) -> Iterator[Made]:
    """Write the component ``name`` from a graph file (BAD_SOURCE, and those of the two kinds)."""
    assert isinstance(part.network, Graph)
    if kind_of(part.network.file) == "onnx":
        from export.assemble.onnx_file import onnx_component

        yield onnx_component(name, part, order)
    else:
        from export.assemble.script_file import script_component

        yield script_component(name, part, order)


def kind_of(file: Path) -> str:
    """``onnx`` or ``torchscript``; raises PackageError (BAD_SOURCE) for anything else."""
    if not file.is_file():
        raise _bad(file, "there is no such file", "Check the path")
    if file.suffix == ".onnx":
        return "onnx"
    names = zipfile.ZipFile(file).namelist() if zipfile.is_zipfile(file) else []
    if any("/code/" in f"/{name}" for name in names):
        return "torchscript"
    if names or file.suffix in (*TORCHSCRIPT_SUFFIXES, ".bin", ".ckpt", ".pkl", ".pickle"):
        raise _pickled(file)
    if file.suffix in (".safetensors", ".h5", ".npz"):
        raise _bad(
            file,
            "these are weights without a network",
            "Write a function that builds the network and loads them, and run pxserve-export module "
            "PACKAGE.MODULE:FUNCTION",
        )
    raise _bad(
        file, "this is neither ONNX (.onnx) nor TorchScript", "Export the network in one of the two forms"
    )


def _pickled(file: Path) -> PackageError:
    return _bad(
        file,
        "this is a pickle of weights (torch.save), which runs any code that it holds when it is opened, and "
        "holds no graph",
        "Convert it where you trust it: "
        f"save_file(torch.load('{file.name}', weights_only=True), '{file.stem}.safetensors') from "
        "safetensors.torch; then load that in a function that builds the network, and run pxserve-export "
        "module PACKAGE.MODULE:FUNCTION",
    )


def _bad(file: Path, problem: str, fix: str) -> PackageError:
    return PackageError(Reason.BAD_SOURCE, file, problem, fix)
