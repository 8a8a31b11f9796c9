"""A one-layer GroupQueryAttention decoder as ONNX, and the same network over whole rows in torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.graph.interface import onnx_component
from export.package.schema import Autoregressive, CacheLayout, Component
from serving.families.rows import Tensors
from serving.runtime.cached import CachedDecoder, open_cached
from serving.runtime.network import RuntimeOptions

HEADS, KV_HEADS, HEAD_DIM = 4, 2, 16
WIDTH = HEADS * HEAD_DIM
QKV = (HEADS + 2 * KV_HEADS) * HEAD_DIM


@dataclass(frozen=True)
class Toy:
    """Random weights; ``symbols`` data symbols, begin symbol ``symbols``, rows of ``length``."""

    symbols: int
    length: int
    weights: dict[str, NDArray[np.float32]]

    @classmethod
    def make(cls, symbols: int, length: int) -> Toy:
        """Weights from a fixed seed."""
        random = np.random.default_rng(5)
        shapes = {"embed": (symbols + 1, WIDTH), "place": (length, WIDTH), "qkv": (WIDTH, QKV)}
        shapes |= {"out": (WIDTH, WIDTH), "head": (WIDTH, symbols)}
        weights = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
        return cls(symbols, length, weights)

    @property
    def section(self) -> Autoregressive:
        """The package's section."""
        cache = CacheLayout(layers=1, kv_heads=KV_HEADS, head_dim=HEAD_DIM, max_length=self.length)
        return Autoregressive(vocabulary=self.symbols, begin_symbol=self.symbols, cache=cache)

    def scorer(self, inputs: Tensors) -> Tensors:
        """tokens [rows, n] -> logits [rows, n, symbols], causal attention in torch."""
        w = {name: torch.from_numpy(value) for name, value in self.weights.items()}
        tokens = inputs["tokens"]
        rows, n = tokens.shape
        x = w["embed"][tokens] + w["place"][:n]
        q, k, v = torch.tensor_split(x @ w["qkv"], (WIDTH, WIDTH + KV_HEADS * HEAD_DIM), dim=-1)
        q, k, v = (part.view(rows, n, -1, HEAD_DIM).transpose(1, 2) for part in (q, k, v))
        heard = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + heard.transpose(1, 2).reshape(rows, n, WIDTH) @ w["out"]
        return {"logits": x @ w["head"]}

    def open(self, folder: Path, slots: int) -> CachedDecoder:
        """The decoder graph, with its cache as inputs and outputs, written and opened on the CPU."""
        model, path = self._model(), folder / "decoder.onnx"
        onnx.save(model, str(path))
        component = Component.model_validate(onnx_component(model, path.name))
        options = RuntimeOptions(torch.device("cpu"), threads=1, max_rows=slots)
        return open_cached(path, component, self.section, slots, options)

    def _model(self) -> onnx.ModelProto:
        nodes = [
            *_positions(),
            helper.make_node("Gather", ["embed", "tokens"], ["symbol"]),
            helper.make_node("Gather", ["place", "positions"], ["placed"]),
            helper.make_node("Add", ["symbol", "placed"], ["x"]),
            helper.make_node("MatMul", ["x", "qkv"], ["packed"]),
            _attention(),
            helper.make_node("MatMul", ["heard", "out"], ["mixed"]),
            helper.make_node("Add", ["x", "mixed"], ["y"]),
            helper.make_node("MatMul", ["y", "head"], ["logits"]),
        ]
        constants = [numpy_helper.from_array(value, name) for name, value in self.weights.items()]
        for name, value in (("zero", 0), ("one", 1)):
            constants.append(numpy_helper.from_array(np.array(value, np.int64), name))
        for name, axis in (("axis_0", 0), ("axis_1", 1)):
            constants.append(numpy_helper.from_array(np.array([axis], np.int64), name))
        graph = helper.make_graph(nodes, "decoder", self._inputs(), self._outputs(), constants)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _cache(self, name: str) -> onnx.ValueInfoProto:
        shape: list[str | int | None] = ["rows", KV_HEADS, self.length, HEAD_DIM]
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def _inputs(self) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["rows", "new"]),
            helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["rows"]),
            helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, []),
            self._cache("past_key_0"),
            self._cache("past_value_0"),
        ]

    def _outputs(self) -> list[onnx.ValueInfoProto]:
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", "new", self.symbols])
        return [logits, self._cache("present_key_0"), self._cache("present_value_0")]


def _positions() -> list[onnx.NodeProto]:
    """Position of each new token: seqlens_k - new + 1 + its index."""
    return [
        helper.make_node("Cast", ["seqlens_k"], ["last"], to=TensorProto.INT64),
        helper.make_node("Shape", ["tokens"], ["new_1d"], start=1, end=2),
        helper.make_node("Squeeze", ["new_1d", "axis_0"], ["new"]),
        helper.make_node("Range", ["zero", "new", "one"], ["index"]),
        helper.make_node("Sub", ["last", "new"], ["before"]),
        helper.make_node("Add", ["before", "one"], ["start"]),
        helper.make_node("Unsqueeze", ["start", "axis_1"], ["start_2d"]),
        helper.make_node("Add", ["start_2d", "index"], ["positions"]),
    ]


def _attention() -> onnx.NodeProto:
    inputs = ["packed", "", "", "past_key_0", "past_value_0", "seqlens_k", "total_sequence_length"]
    return helper.make_node(
        "GroupQueryAttention",
        inputs,
        ["heard", "present_key_0", "present_value_0"],
        domain="com.microsoft",
        num_heads=HEADS,
        kv_num_heads=KV_HEADS,
    )
