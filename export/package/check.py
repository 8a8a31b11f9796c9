"""Checks that open the graphs, but run nothing: do they take and give what ``model.yaml`` says?"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from export.package.errors import PackageError, Reason
from export.package.graphs import GraphTensor, read_graph, unreadable
from export.package.operators import register_operators
from export.package.paths import MODEL_FILE, resolve
from export.package.ports import mismatch
from export.package.read import Package
from export.package.schema import Component, TensorSpec

_TRUSTED = "export.zoo.trusted"


def check_graphs(package: Package, *, allow_torchscript: bool = False) -> None:
    """Compare every graph of ``package`` with its component.

    Raises PackageError: TORCHSCRIPT_NOT_ALLOWED (before any TorchScript is opened), UNREADABLE_GRAPH,
    GRAPH_MISMATCH, WRONG_SHAPE, PATH_ESCAPES, MISSING_FILE, UNLISTED_FILE (of external weights).
    """
    check_torchscript(package, allow=allow_torchscript)
    for name, component in _graphs(package):
        if component.format == "onnx":
            _check_onnx(package, name, component)
        else:
            _check_torchscript_graph(package, name, component)


def _graphs(package: Package) -> Iterator[tuple[str, Component]]:
    """Every graph of every component, variants too."""
    for name, component in package.spec.components.items():
        for graph in component.graphs:
            yield name, graph


def check_torchscript(package: Package, *, allow: bool) -> None:
    """TorchScript is code: it needs ``allow``, or a file of the bundled zoo (TORCHSCRIPT_NOT_ALLOWED)."""
    for name, component in _graphs(package):
        if component.format == "onnx" or allow or package.spec.files[component.file] in trusted_digests():
            continue
        raise PackageError(
            Reason.TORCHSCRIPT_NOT_ALLOWED,
            package.folder / component.file,
            f"components.{name} is TorchScript, which can run any code when it is loaded",
            "Start with --allow-torchscript if you trust where it comes from, or export it as ONNX",
        )


def trusted_digests() -> frozenset[str]:
    """SHA-256 of the TorchScript files of the bundled zoo; none where the zoo is not installed."""
    if find_spec(_TRUSTED) is None:
        return frozenset()
    return frozenset(import_module(_TRUSTED).TORCHSCRIPT_SHA256)


def _check_onnx(package: Package, name: str, component: Component) -> None:
    info = read_graph(package.path(component.file))
    for location in info.external:
        _check_external(package, component, location)
    where = f"{package.folder / component.file}: components.{name}"
    _check_side(f"{where}.inputs", component.inputs, info.inputs, exact=True)
    _check_side(f"{where}.outputs", component.outputs, info.outputs, exact=False)


def _check_external(package: Package, component: Component, location: str) -> None:
    """Weights beside a graph are files of the package like any other."""
    file = posixpath.normpath(posixpath.join(posixpath.dirname(component.file), location))
    resolve(package.folder, file)
    if file not in package.spec.files:
        raise PackageError(
            Reason.UNLISTED_FILE,
            package.folder / file,
            f"{component.file} reads its weights from this file, which {MODEL_FILE} does not list",
            "Export the package again with it",
        )


def _check_side(
    where: str, declared: Sequence[TensorSpec], found: Sequence[GraphTensor], *, exact: bool
) -> None:
    """``exact``: nothing beyond what is declared (outputs that nobody asks for are harmless)."""
    by_name = {tensor.name: tensor for tensor in found}
    names = {tensor.name for tensor in declared}
    missing = sorted(names - set(by_name))
    extra = sorted(set(by_name) - names) if exact else []
    if missing or extra:
        problem = (
            f"the graph has {', '.join(by_name) or 'none'}, model.yaml {', '.join(sorted(names)) or 'none'}"
        )
        raise mismatch(where, problem, "Correct the names under components, or export the graph again")
    for tensor in declared:
        _check_tensor(f"{where}.{tensor.name}", tensor, by_name[tensor.name])


def _check_tensor(where: str, declared: TensorSpec, found: GraphTensor) -> None:
    if declared.dtype != found.dtype:
        raise mismatch(
            where, f"the graph has {found.dtype}, model.yaml {declared.dtype}", "Correct the dtype"
        )
    if found.shape is not None and not _agrees(declared.shape, found.shape):
        shown = "[" + ", ".join("?" if size is None else str(size) for size in found.shape) + "]"
        raise PackageError(
            Reason.WRONG_SHAPE,
            where,
            f"the graph has {shown}, model.yaml [{', '.join(map(str, declared.shape))}]",
            "Correct the shape, or export the graph again (rows and named axes must be dynamic)",
        )


def _agrees(declared: tuple[int | str, ...], found: tuple[int | None, ...]) -> bool:
    """A named axis must be open in the graph; a size must be that size there, or open."""
    if len(declared) != len(found):
        return False
    return all(size is None or size == wanted for wanted, size in zip(declared, found, strict=True))


def _check_torchscript_graph(package: Package, name: str, component: Component) -> None:
    """The number of inputs and outputs is all that a traced module declares."""
    path = package.path(component.file)
    inputs, outputs = _torchscript_counts(path)
    where = f"{path}: components.{name}"
    if inputs != len(component.inputs) or outputs not in (None, len(component.outputs)):
        problem = f"the module takes {inputs} and gives {outputs}, model.yaml says {len(component.inputs)}"
        raise mismatch(
            where,
            f"{problem} and {len(component.outputs)}",
            "List inputs and outputs in the module's order, or export it again",
        )


def _torchscript_counts(path: Path) -> tuple[int, int | None]:
    """Inputs and outputs of a module's ``forward``; None where the outputs are not a tensor or tuple."""
    import torch

    register_operators()
    try:
        module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise unreadable(path, f"not a TorchScript module ({str(error).splitlines()[0]})") from error
    schema = module.forward.schema
    returned = schema.returns[0].type
    if returned.kind() == "TupleType":
        return len(schema.arguments) - 1, len(returned.elements())
    return len(schema.arguments) - 1, 1 if returned.kind() == "TensorType" else None
