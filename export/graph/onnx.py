"""A torch module as an ONNX graph: named inputs and outputs, dynamic rows, nothing of this machine in it."""

from __future__ import annotations

import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from export.graph.affine_norm import join_affine_norms

OPSET = 20
PRODUCER = "pxserve-export"
LARGE_BYTES = 1 << 30


@dataclass(frozen=True)
class Signature:
    """Example inputs by name, the names of the outputs, and which axes are dynamic.

    ``dynamic`` names axes per input: ``{"tokens": {0: "rows", 1: "length"}}``; inputs that it leaves out
    have axis 0 dynamic, called ``rows``. Examples need at least two rows, or torch takes 1 as a constant.
    """

    inputs: Mapping[str, Tensor]
    outputs: Sequence[str]
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def axes(self, name: str) -> Mapping[int, str]:
        """The dynamic axes of an input."""
        return self.dynamic.get(name, {0: "rows"})


def export_onnx(
    module: nn.Module, signature: Signature, *, optimize: bool = True, beside: Path | None = None
) -> onnx.ModelProto:
    """Write ``module`` as a graph; raises torch.onnx.errors.OnnxExporterError where it cannot.

    ``beside``: the file that the graph will be; weights of more than ``LARGE_BYTES`` are written next to it,
    and the graph only names them (a protobuf message holds 2 GiB). OSError passes through.
    """
    inputs = tuple(signature.inputs.values())
    shapes: Any = dynamic_shapes(signature)
    if any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(module.forward).parameters.values()):
        shapes = (shapes,)  # forward(self, *arguments) has one parameter
    program = torch.export.export(module.eval(), inputs, dynamic_shapes=shapes, strict=False)
    return export_program(program, signature, optimize=optimize, beside=beside)


def export_program(
    program: torch.export.ExportedProgram,
    signature: Signature,
    *,
    optimize: bool = True,
    beside: Path | None = None,
) -> onnx.ModelProto:
    """Write an exported program as a graph whose input and output names are the signature's."""
    with _quiet():
        written = torch.onnx.export(
            program,
            input_names=list(signature.inputs),
            output_names=list(signature.outputs),
            opset_version=OPSET,
            dynamo=True,
            optimize=optimize,
            verbose=False,
        )
    assert written is not None
    if beside is not None and _weight_bytes(program) > LARGE_BYTES:
        written.save(beside, external_data=True)
        large = onnx.load(beside, load_external_data=False)
        _name_axes(large, signature)
        onnx.checker.check_model(str(beside), full_check=False)
        return finish(large, check=False)
    model = written.model_proto
    if optimize:
        join_affine_norms(model)
    _name_axes(model, signature)
    return finish(model)


def _weight_bytes(program: torch.export.ExportedProgram) -> int:
    return sum(value.numel() * value.element_size() for value in program.state_dict.values())


def _name_axes(model: onnx.ModelProto, signature: Signature) -> None:
    """Give the dynamic axes the signature's names; the exporter leaves torch's symbols there."""
    names: dict[str, str] = {}
    for value in model.graph.input:
        for axis, label in signature.axes(value.name).items():
            names[value.type.tensor_type.shape.dim[axis].dim_param] = label
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = names.get(dim.dim_param, dim.dim_param)


def finish(model: onnx.ModelProto, *, check: bool = True) -> onnx.ModelProto:
    """Remove every trace of the machine from a graph, name its producer, and check it.

    A graph whose weights lie beside it can only be checked as a file.
    """
    strip(model)
    model.producer_name = PRODUCER
    model.producer_version = ""
    if check:
        onnx.checker.check_model(model, full_check=False)
    return model


def strip(model: onnx.ModelProto) -> None:
    """Drop metadata, doc strings and inferred value types, which carry source paths and stack traces."""
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    _strip_graph(model.graph)
    for function in model.functions:
        function.ClearField("doc_string")
        function.ClearField("metadata_props")
        _strip_nodes(function.node)


def _strip_graph(graph: onnx.GraphProto) -> None:
    for name in ("doc_string", "metadata_props", "value_info", "quantization_annotation"):
        graph.ClearField(name)
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.ClearField("doc_string")
        value.ClearField("metadata_props")
    _strip_nodes(graph.node)


def _strip_nodes(nodes: Any) -> None:
    for node in nodes:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            for graph in (attribute.g, *attribute.graphs) if _holds_graph(attribute) else ():
                _strip_graph(graph)


def _holds_graph(attribute: onnx.AttributeProto) -> bool:
    return attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def to_bytes(model: onnx.ModelProto) -> bytes:
    """A graph with its fields in a fixed order, so that equal graphs are equal bytes."""
    return model.SerializeToString(deterministic=True)


def dynamic_shapes(signature: Signature) -> tuple[dict[int, Any], ...]:
    """For torch.export: one Dim object per axis name, shared by all inputs."""
    dims: dict[str, Any] = {}

    def dim(label: str) -> Any:
        return dims.setdefault(label, torch.export.Dim(label, min=1))

    return tuple(
        {axis: dim(label) for axis, label in signature.axes(name).items()} for name in signature.inputs
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and warns about what concerns its own authors."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.getLogger("torch.onnx").setLevel(level)
