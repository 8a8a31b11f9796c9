"""ONNX nodes and constants, written one by one around a graph that exists; operators of opset 11 on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

OLDEST_OPSET = 11  # whose Slice, Clip and OneHot take what they need as inputs

ONNX_DTYPES: dict[str, int] = {
    "bool": onnx.TensorProto.BOOL,
    "uint8": onnx.TensorProto.UINT8,
    "int32": onnx.TensorProto.INT32,
    "int64": onnx.TensorProto.INT64,
    "float16": onnx.TensorProto.FLOAT16,
    "bfloat16": onnx.TensorProto.BFLOAT16,
    "float32": onnx.TensorProto.FLOAT,
    "float64": onnx.TensorProto.DOUBLE,
}


class NodeWriter:
    """Collects nodes and initializers whose names start with ``prefix``."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._prefix = prefix
        self._count = 0

    def node(self, operator: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """One node with one output; the output's name."""
        target = output or self._name(operator.lower())
        self.nodes.append(helper.make_node(operator, list(inputs), [target], name=target, **attributes))
        return target

    def constant(self, value: npt.NDArray[Any]) -> str:
        """An initializer; its name."""
        name = self._name("constant")
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def number(self, value: float, shape: Sequence[int] = ()) -> str:
        """A float32 constant."""
        return self.constant(np.full(tuple(shape), value, np.float32))

    def integers(self, values: Sequence[int]) -> str:
        """An int64 constant, as axes and shapes are given."""
        return self.constant(np.asarray(values, np.int64))

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{self._prefix}.{what}_{self._count}"
