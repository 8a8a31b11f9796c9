"""The inputs and outputs that a component must have, and the refusal of one that has others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from export.package.errors import PackageError, Reason
from export.package.schema import Component, TensorSpec

ROWS = "rows"

Kind = Literal["real", "integer", "number", "int64", "int32"]

_REAL = ("float32", "float16", "bfloat16", "float64")
_DTYPES: dict[Kind, tuple[str, ...]] = {
    "real": _REAL,
    "integer": ("int64", "int32"),
    "number": (*_REAL, "int64", "int32"),
    "int64": ("int64",),
    "int32": ("int32",),
}


@dataclass(frozen=True)
class Port:
    """One input or output: ``shape`` is a row's (without ``rows``; None: any size), unless ``scalar``.

    ``broadcasts``: sizes may also be 1. An ``optional`` port may be absent. ``first``: the leading axis.
    """

    name: str
    kind: Kind
    shape: tuple[int | None, ...] = ()
    scalar: bool = False
    broadcasts: bool = False
    optional: bool = False
    first: str = ROWS


@dataclass(frozen=True)
class Contract:
    """What a component takes and gives; ``required``: whether the family cannot do without it."""

    component: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    required: bool = True


def check_component(where: str, component: Component, contract: Contract) -> None:
    """Compare the declared tensors with the contract (GRAPH_MISMATCH, WRONG_SHAPE)."""
    base = f"{where}: components.{contract.component}"
    check_side(f"{base}.inputs", component.inputs, contract.inputs)
    check_side(f"{base}.outputs", component.outputs, contract.outputs)
    check_names(base, component)


def check_side(where: str, tensors: Sequence[TensorSpec], ports: Sequence[Port]) -> None:
    """The tensors are the ports: no other name, none missing, each of its kind and shape."""
    found = {tensor.name: tensor for tensor in tensors}
    known = {port.name: port for port in ports}
    if len(found) != len(tensors):
        raise mismatch(where, "a name appears twice", "Give every tensor a name of its own")
    for name in found:
        if name not in known:
            raise mismatch(where, f"nothing here is called {name!r}", f"Known names: {', '.join(known)}")
    for port in ports:
        if port.name in found:
            check_port(f"{where}.{port.name}", found[port.name], port)
        elif not port.optional:
            raise mismatch(where, f"{port.name!r} is missing", f"Export it as {describe(port)}")


def check_port(where: str, tensor: TensorSpec, port: Port) -> None:
    """One tensor against its port."""
    if tensor.dtype not in _DTYPES[port.kind]:
        raise mismatch(where, f"dtype is {tensor.dtype}", f"Export it as {describe(port)}")
    if not _fits(tensor.shape, port):
        shown = "[" + ", ".join(map(str, tensor.shape)) + "]"
        raise PackageError(Reason.WRONG_SHAPE, where, f"shape is {shown}", f"It must be {describe(port)}")


def _fits(shape: tuple[int | str, ...], port: Port) -> bool:
    if port.scalar:
        return shape == ()
    if len(shape) != 1 + len(port.shape) or shape[0] != port.first:
        return False
    pairs = zip(shape[1:], port.shape, strict=True)
    return all(
        isinstance(size, str) or wanted is None or size == wanted or (port.broadcasts and size == 1)
        for size, wanted in pairs
    )


def check_names(where: str, component: Component) -> None:
    """Named axes of outputs must occur among the inputs, or their sizes could not be known before a run."""
    known = {ROWS, *_axes(component.inputs)}
    for tensor in component.outputs:
        for axis in _axes([tensor]):
            if axis not in known:
                raise PackageError(
                    Reason.WRONG_SHAPE,
                    f"{where}.outputs.{tensor.name}",
                    f"no input has an axis called {axis!r}",
                    "Give the axis its size, or the name of an input's axis",
                )


def _axes(tensors: Iterable[TensorSpec]) -> list[str]:
    return [axis for tensor in tensors for axis in tensor.shape if isinstance(axis, str)]


def describe(port: Port) -> str:
    """A port in words: "float32 x [rows, 1, 8, 8]"."""
    sizes = [] if port.scalar else [port.first, *("n" if size is None else str(size) for size in port.shape)]
    return f"{' or '.join(_DTYPES[port.kind][:2])} {port.name} [{', '.join(sizes)}]"


def mismatch(where: str, problem: str, fix: str) -> PackageError:
    """A refusal with the reason GRAPH_MISMATCH."""
    return PackageError(Reason.GRAPH_MISMATCH, where, problem, fix)
