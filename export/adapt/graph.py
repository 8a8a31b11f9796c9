"""A user's ONNX graph behind the package's names: nodes for every stated step, and rows of any number."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import compose, helper

from export.adapt.steps import write_all
from export.adapt.wiring import Wire, Wiring
from export.adapt.writer import OLDEST_OPSET, ONNX_DTYPES, NodeWriter

PREFIX = "network."


class GraphError(ValueError):
    """The graph and the specification do not fit together; says what there is instead."""


def adapt_graph(model: onnx.ModelProto, wiring: Wiring) -> onnx.ModelProto:
    """``model`` with ``wiring``'s inputs and outputs; weights outside the file stay where they are.

    Raises GraphError: a name that the graph lacks, an input that nothing feeds, an opset too old for a step.
    """
    _check_names(model, wiring)
    if not wiring.plain and opset(model) < OLDEST_OPSET:
        raise GraphError(
            f"opset {opset(model)} is older than {OLDEST_OPSET}, the oldest that adapters can be written in: "
            "convert it with onnx.version_converter.convert_version"
        )
    inner = compose.add_prefix(model, PREFIX)
    before, after = NodeWriter("before"), NodeWriter("after")
    for wire in wiring.inputs:
        before.node("Identity", [write_all(wire.steps, before, wire.name)], PREFIX + _name(wire))
    for wire in wiring.outputs:
        after.node("Identity", [write_all(wire.steps, after, PREFIX + _name(wire))], wire.name)
    graph = inner.graph
    nodes = [*before.nodes, *graph.node, *after.nodes]
    initializers = [*before.initializers, *graph.initializer, *after.initializers]
    for field, values in (("node", nodes), ("initializer", initializers)):
        graph.ClearField(field)
        getattr(graph, field).extend(values)
    for field, wires in (("input", wiring.inputs), ("output", wiring.outputs)):
        graph.ClearField(field)
        getattr(graph, field).extend(_value(wire) for wire in wires)
    graph.ClearField("value_info")  # sizes of the old inputs
    return inner


def opset(model: onnx.ModelProto) -> int:
    """Version of the standard operators."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def input_names(model: onnx.ModelProto) -> list[str]:
    """Inputs that somebody has to feed."""
    held = {tensor.name for tensor in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in held]


def _check_names(model: onnx.ModelProto, wiring: Wiring) -> None:
    inputs, outputs = input_names(model), [value.name for value in model.graph.output]
    _known("input", wiring.inputs, inputs)
    _known("output", wiring.outputs, outputs)
    unfed = [name for name in inputs if name not in {_name(wire) for wire in wiring.inputs}]
    if unfed:
        raise GraphError(
            f"nothing feeds the graph's input {unfed[0]!r}: say which value it is "
            f"(of {', '.join(wire.name for wire in wiring.inputs)}), or export the graph without it"
        )


def _known(side: str, wires: Sequence[Wire], names: Sequence[str]) -> None:
    for wire in wires:
        if _name(wire) not in names:
            raise GraphError(
                f"the graph has no {side} {_name(wire)!r} for {wire.name!r}; it has {', '.join(names)}. "
                f"Add  {side}s: {{{wire.name}: {names[0] if len(names) == 1 else 'NAME'}}}"
            )


def _name(wire: Wire) -> str:
    """Its name in the graph: the stated one, or the package's own."""
    return wire.source if isinstance(wire.source, str) else wire.name


def _value(wire: Wire) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(wire.name, ONNX_DTYPES[wire.dtype], ["rows", *wire.shape])
