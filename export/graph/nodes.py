"""Nodes and weights of a graph in the order in which they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from export.graph.decoder import Array, Linear, Norm, Weight, tensor_of
from export.graph.quantize import Quantization, quantized
from export.graph.store import Inside, Store

CONTRIB = "com.microsoft"


@dataclass
class Writer:
    """``element``: dtype of all float weights; ``quantization``: of the matrices, none where it is None."""

    element: torch.dtype = torch.float32
    store: Store = field(default_factory=Inside)
    quantization: Quantization | None = None
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    _held: set[str] = field(default_factory=set)

    def constant(self, name: str, value: Array) -> str:
        """A small array in the graph, once."""
        if name not in self._held:
            self._held.add(name)
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def weight(self, name: str, weight: Weight) -> str:
        """A float weight, once."""
        if name not in self._held:
            self._keep(name, tensor_of(weight).to(self.element))
        return name

    def _keep(self, name: str, value: torch.Tensor) -> str:
        self._held.add(name)
        self.initializers.append(self.store.add(name, value))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """One node of the standard's; its output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def contrib(self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> str:
        """One node of ONNX Runtime's own; its first output."""
        self.nodes.append(
            helper.make_node(operator, inputs, outputs, name=outputs[0], domain=CONTRIB, **attributes)
        )
        return outputs[0]

    def product(self, name: str, linear: Linear, x: str, output: str = "") -> str:
        """x @ weight, without the bias."""
        target = output or f"{name}.product"
        if self.quantization is None:
            return self.node("MatMul", [x, self.weight(f"{name}.weight", linear.weight)], target)
        return self._quantized_product(name, tensor_of(linear.weight).T, x, target)

    def tied_product(self, name: str, table: str, weight: Weight, x: str, output: str) -> str:
        """x [n, width] @ table^T, where ``table`` is a weight of the graph already."""
        if self.quantization is None:
            return self.node("Gemm", [x, table], output, transB=1)
        return self._quantized_product(name, tensor_of(weight), x, output)

    def _quantized_product(self, name: str, transposed: torch.Tensor, x: str, output: str) -> str:
        """``transposed`` [out, in]."""
        assert self.quantization is not None
        packed = quantized(transposed.float().numpy(), self.quantization)
        scales = torch.from_numpy(packed.scales).to(self.element)
        inputs = [
            x,
            self._keep(f"{name}.packed", torch.from_numpy(packed.values)),
            self._keep(f"{name}.scales", scales),
        ]
        return self.contrib("MatMulNBits", inputs, [output], **packed.attributes)

    def linear(self, name: str, linear: Linear, x: str, output: str = "") -> str:
        """x @ weight + bias."""
        target = output or f"{name}.out"
        if linear.bias is None:
            return self.product(name, linear, x, target)
        product = self.product(name, linear, x)
        return self.node("Add", [product, self.weight(f"{name}.bias", linear.bias)], target)

    def norm(self, name: str, norm: Norm, x: str) -> str:
        """LayerNorm or RMSNorm over the last axis."""
        inputs = [x, *self.norm_weights(name, norm)]
        operator = "RMSNormalization" if norm.bias is None else "LayerNormalization"
        return self.node(operator, inputs, f"{name}.out", axis=-1, epsilon=norm.epsilon)

    def norm_weights(self, name: str, norm: Norm) -> list[str]:
        """Its weight, and its bias where it has one."""
        names = [self.weight(f"{name}.weight", norm.weight)]
        return names if norm.bias is None else [*names, self.weight(f"{name}.bias", norm.bias)]
