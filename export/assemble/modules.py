"""Components from torch modules: the graph, and where asked for its gradient graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from export.adapt.module import Adapted
from export.adapt.wiring import Wiring
from export.assemble.failures import refused_export
from export.assemble.made import Made, Order
from export.assemble.prepare import prepared
from export.assemble.rounded import export_rounded
from export.assemble.traced import write_script
from export.assemble.trial import trial
from export.graph.onnx import Signature, export_onnx
from export.graph.save import save_onnx
from export.graph.vjp import VectorJacobian, cotangents, export_vjp
from export.model.base import Part
from export.model.network import Network
from export.package.seeded import seeded_inputs
from export.package.verify import ROWS, Arrays, Run

EXAMPLE_ROWS = 5  # of what is traced: unlike the usual numbers of channels, so that none is taken for rows
VERIFIED_ROWS = max(ROWS)
T = TypeVar("T")


def try_module(name: str, part: Part, order: Order) -> None:
    """Run the network once, so that what is wrong shows before any graph is written.

    Raises PackageError: those of ``prepared`` and ``trial``.
    """
    assert isinstance(part.network, Network)
    with prepared(name, part.network.module, order.say) as network:
        inputs = tensors(seeded_inputs(order.spec, name, EXAMPLE_ROWS), EXAMPLE_ROWS)
        trial(name, network, part.wiring, inputs)


def module_components(name: str, part: Part, order: Order) -> Iterator[Made]:
    """Write the component ``name`` of a torch module (and ``NAME_vjp``), while the module is held ready.

    Raises PackageError: UNSUPPORTED_NETWORK.
    """
    assert isinstance(part.network, Network)
    with prepared(name, part.network.module) as network:
        adapted = Adapted(network, part.wiring).eval()
        arrays = seeded_inputs(order.spec, name, VERIFIED_ROWS)
        inputs = tensors(arrays, EXAMPLE_ROWS)
        for place, precision in enumerate(_precisions(part, order)):
            made = _graph if precision == "float32" else _low
            yield replace(made(name, adapted, part.wiring, inputs, arrays, order), variant=place > 0)
        if order.vjp and part.product is not None:
            outputs = [wire.name for wire in part.wiring.outputs]
            yield _product(name, adapted, part, inputs, outputs, order)


def tensors(arrays: Arrays, rows: int) -> dict[str, Tensor]:
    """The first rows as tensors."""
    return {name: torch.from_numpy(np.ascontiguousarray(value[:rows])) for name, value in arrays.items()}


def run_module(module: nn.Module, inputs: list[str], outputs: list[str]) -> Run:
    """A module as a function of named arrays."""

    def run(arrays: Arrays) -> Arrays:
        values = (torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in inputs)
        with torch.no_grad():
            answer = module(*values)
        several = answer if isinstance(answer, tuple) else (answer,)
        return {name: value.numpy() for name, value in zip(outputs, several, strict=True)}

    return run


def _graph(
    name: str, adapted: Adapted, wiring: Wiring, inputs: Mapping[str, Tensor], arrays: Arrays, order: Order
) -> Made:
    outputs = [wire.name for wire in wiring.outputs]
    source = run_module(adapted, list(inputs), outputs)
    if order.format == "torchscript":
        file, entry = write_script(name, adapted, wiring, inputs, order)
        return Made(name, order.folder, (file,), entry, source, arrays)
    file = f"{name}.onnx"
    signature = Signature(inputs, outputs, axes(wiring))
    model = _guarded(name, "ONNX", lambda: export_onnx(adapted, signature, beside=order.folder / file))
    state_shapes(model, wiring)
    written = tuple(save_onnx(model, order.folder, file))
    return Made(name, order.folder, written, wiring.component("onnx", file), source, arrays)


def axes(wiring: Wiring) -> dict[str, dict[int, str]]:
    """The dynamic axes of every input."""
    named = {wire.name: {0: "rows"} for wire in wiring.inputs}
    for wire in wiring.inputs:
        named[wire.name] |= {i + 1: size for i, size in enumerate(wire.shape) if isinstance(size, str)}
    return named


def state_shapes(model: Any, wiring: Wiring) -> None:
    """The graph declares the outputs' shapes as the specification does; that they hold is verified."""
    shapes = {wire.name: ("rows", *wire.shape) for wire in wiring.outputs}
    for value in model.graph.output:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, shapes[value.name], strict=True):
            dim.Clear()
            if isinstance(size, str):
                dim.dim_param = size
            else:
                dim.dim_value = size


def _product(
    name: str, adapted: Adapted, part: Part, inputs: Mapping[str, Tensor], outputs: list[str], order: Order
) -> Made:
    """The network with its vector-Jacobian product, for every input and a cotangent per output."""
    assert part.product is not None
    generator = torch.Generator().manual_seed(0)
    own = seeded_inputs(order.spec, name, VERIFIED_ROWS)
    directions = cotangents(adapted, tensors(own, VERIFIED_ROWS), outputs, generator)
    arrays = {**own, **{key: value.numpy() for key, value in directions.items()}}
    results = [*outputs, f"{part.product}_vjp"]
    examples = tensors(arrays, EXAMPLE_ROWS)
    signature = Signature(examples, results, axes(part.wiring))
    model = _guarded(f"{name}_vjp", "ONNX", lambda: export_vjp(adapted, signature, part.product or ""))
    file = f"{name}_vjp.onnx"
    written = tuple(save_onnx(model, order.folder, file))
    source = run_module(VectorJacobian(adapted, signature, part.product), list(arrays), results)
    entry = _product_entry(part, arrays, results, file)
    return Made(f"{name}_vjp", order.folder, written, entry, source, arrays)


def _product_entry(part: Part, arrays: Arrays, results: list[str], file: str) -> dict[str, Any]:
    entry = part.wiring.component("onnx", file)
    shapes = {wire.name: list(wire.shape) for wire in (*part.wiring.outputs, *part.wiring.inputs)}
    known = {tensor["name"] for tensor in entry["inputs"]}
    for name in [name for name in arrays if name not in known]:
        output = name.removeprefix("cotangent").removeprefix("_") or results[0]
        entry["inputs"].append(_tensor(name, shapes[output]))
    entry["outputs"].append(_tensor(results[-1], shapes[part.product or ""]))
    return entry


def _tensor(name: str, shape: list[Any]) -> dict[str, Any]:
    return {"name": name, "dtype": "float32", "shape": ["rows", *shape]}


def _precisions(part: Part, order: Order) -> tuple[str, ...]:
    """Of the graphs of a component: those asked for where the loop is, float32 for the others."""
    return order.precisions if part.looped else ("float32",)


def _low(
    name: str, adapted: Adapted, wiring: Wiring, inputs: Mapping[str, Tensor], arrays: Arrays, order: Order
) -> Made:
    """The same network in bfloat16, for CPUs."""
    file = f"{name}_bfloat16.pt"
    content = _guarded(name, "TorchScript", lambda: export_rounded(adapted, inputs))
    (order.folder / file).write_bytes(content)
    entry = wiring.component("torchscript", file) | {"precision": "bfloat16", "device": "cpu"}
    source = run_module(adapted, list(inputs), [wire.name for wire in wiring.outputs])
    return Made(name, order.folder, (file,), entry, source, arrays)


def _guarded(name: str, kind: str, write: Callable[[], T]) -> T:
    try:
        return write()
    except OSError:  # of the disk
        raise
    except Exception as error:  # torch's exporters raise types of many kinds
        raise refused_export(name, kind, error) from error
