"""What an ONNX file declares, read without running it and without its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from export.package.errors import PackageError, Reason

_DTYPES: dict[int, str] = {
    onnx.TensorProto.BOOL: "bool",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
}


@dataclass(frozen=True)
class GraphTensor:
    """An input or output: None for sizes that the graph leaves open; ``shape`` None: it declares none."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class GraphInfo:
    """What a graph takes and gives, and the weight files that it reads, relative to its own folder."""

    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    external: tuple[str, ...]


def read_graph(path: Path) -> GraphInfo:
    """Read an ONNX file; raises PackageError (UNREADABLE_GRAPH)."""
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise unreadable(path, f"not an ONNX graph ({error})") from error
    if not model.graph.output:
        raise unreadable(path, "not an ONNX graph (it has no outputs)")
    held = {tensor.name for tensor in model.graph.initializer}
    external = {ExternalDataInfo(t).location for t in tensors_of(model.graph) if uses_external_data(t)}
    return GraphInfo(
        tuple(_tensor(value) for value in model.graph.input if value.name not in held),
        tuple(_tensor(value) for value in model.graph.output),
        tuple(sorted(external)),
    )


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph and of the graphs inside its nodes."""
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from ([attribute.t] if attribute.HasField("t") else [])
        yield from attribute.tensors
        for inner in _graphs(attribute):
            yield from tensors_of(inner)


def _graphs(attribute: onnx.AttributeProto) -> Iterable[onnx.GraphProto]:
    return ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)


def _tensor(value: onnx.ValueInfoProto) -> GraphTensor:
    kind = value.type.tensor_type
    dtype = _DTYPES.get(kind.elem_type, f"ONNX type {kind.elem_type}")
    if not kind.HasField("shape"):
        return GraphTensor(value.name, dtype, None)
    sizes = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
    return GraphTensor(value.name, dtype, sizes)


def unreadable(path: Path, problem: str) -> PackageError:
    """A refusal with the reason UNREADABLE_GRAPH."""
    return PackageError(Reason.UNREADABLE_GRAPH, path, problem, "Export the graph again")
