"""What goes into a graph and what comes out, as the package's schema says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto
from torch import Tensor

_ONNX_DTYPES: dict[int, str] = {
    TensorProto.BOOL: "bool",
    TensorProto.UINT8: "uint8",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
}


def onnx_component(model: onnx.ModelProto, file: str) -> dict[str, Any]:
    """The ``components`` entry of an ONNX graph, read from the graph itself."""
    return {
        "format": "onnx",
        "file": file,
        "inputs": [_value(value) for value in model.graph.input],
        "outputs": [_value(value) for value in model.graph.output],
    }


def torchscript_component(
    inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], file: str
) -> dict[str, Any]:
    """The ``components`` entry of a traced module, from one example of its inputs and outputs."""
    return {
        "format": "torchscript",
        "file": file,
        "inputs": [_example(name, value) for name, value in inputs.items()],
        "outputs": [_example(name, value) for name, value in outputs.items()],
    }


def named(names: Sequence[str], outputs: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
    """A module's outputs by name."""
    several = outputs if isinstance(outputs, tuple) else (outputs,)
    return dict(zip(names, several, strict=True))


def _value(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
    return {"name": value.name, "dtype": _ONNX_DTYPES[tensor.elem_type], "shape": shape}


def _example(name: str, value: Tensor) -> dict[str, Any]:
    dtype = str(value.dtype).removeprefix("torch.")
    return {"name": name, "dtype": dtype, "shape": ["rows", *value.shape[1:]]}
