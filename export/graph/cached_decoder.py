"""A decoder-only transformer as an ONNX graph that keeps its key/value cache in place.

Inputs: ``tokens`` int64 [rows, new]; ``seqlens_k`` int32 [rows] (tokens in the cache after the call, minus
1); ``total_sequence_length`` int32 scalar (of the longest row); per layer i ``past_key_i`` and
``past_value_i`` [rows, kv_heads, max_length, head_dim]. Outputs: ``logits`` [rows, new, vocabulary];
``present_key_i`` and ``present_value_i``, meant to be bound to the buffers of the past. Attention is
ONNX Runtime's ``com.microsoft::GroupQueryAttention``; with a past, more than one new token needs one row.

The graph is written node by node from a description, so that a network of any library whose blocks have
these parts (GPT-2, Llama) can be written without tracing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graph.onnx import OPSET, finish

Array = npt.NDArray[Any]
IR_VERSION = 10
RMS_OPSET = 23  # the first with RMSNormalization


@dataclass(frozen=True)
class Norm:
    """LayerNorm, or RMSNorm where there is no bias."""

    weight: Array
    bias: Array | None
    epsilon: float = 1e-5


@dataclass(frozen=True)
class Linear:
    """x @ weight + bias; ``weight`` [in, out] (torch's nn.Linear transposed)."""

    weight: Array
    bias: Array | None = None


@dataclass(frozen=True)
class Mlp:
    """down(act(up(x))), or with a ``gate`` down(silu(gate(x)) * up(x)) (Shazeer 2020, SwiGLU)."""

    up: Linear
    down: Linear
    gate: Linear | None = None
    approximate: str = "tanh"  # of GELU: tanh or none


@dataclass(frozen=True)
class DecoderBlock:
    """Pre-norm attention and perceptron; ``qkv`` packs (heads + 2 kv_heads) * head_dim channels."""

    norm_attention: Norm
    qkv: Linear
    project: Linear
    norm_mlp: Norm
    mlp: Mlp


@dataclass(frozen=True)
class Rotary:
    """Cosines and sines [max_length, head_dim / 2] (Su et al. 2021), halves rotated, not pairs."""

    cosines: Array
    sines: Array


@dataclass(frozen=True)
class Decoder:
    """The whole network; learned positions, rotary ones, or both absent."""

    token: Array  # [inputs, width]
    blocks: Sequence[DecoderBlock]
    norm_out: Norm
    head: Linear
    heads: int
    kv_heads: int
    head_dim: int
    max_length: int
    position: Array | None = None  # [max_length, width]
    rotary: Rotary | None = None


def build_cached_decoder(decoder: Decoder) -> onnx.ModelProto:
    """Write the graph; all weights share the dtype of ``decoder.token``."""
    writer = _Writer()
    hidden = _embed(writer, decoder)
    for index, block in enumerate(decoder.blocks):
        hidden = _block(writer, decoder, block, index, hidden)
    writer.linear("head", decoder.head, writer.norm("norm_out", decoder.norm_out, hidden), output="logits")
    graph = helper.make_graph(
        writer.nodes, "cached_decoder", _inputs(decoder), _outputs(decoder), initializer=writer.initializers
    )
    opset = OPSET if decoder.norm_out.bias is not None else RMS_OPSET
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return finish(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION))


class _Writer:
    """Nodes and initializers in the order in which they are written."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Array) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def linear(self, name: str, linear: Linear, x: str, output: str = "") -> str:
        target = output or f"{name}.out"
        product = target if linear.bias is None else f"{name}.product"
        self.node("MatMul", [x, self.constant(f"{name}.weight", linear.weight)], product)
        if linear.bias is not None:
            self.node("Add", [product, self.constant(f"{name}.bias", linear.bias)], target)
        return target

    def norm(self, name: str, norm: Norm, x: str) -> str:
        inputs = [x, self.constant(f"{name}.weight", norm.weight)]
        operator = "RMSNormalization"
        if norm.bias is not None:
            operator = "LayerNormalization"
            inputs.append(self.constant(f"{name}.bias", norm.bias))
        return self.node(operator, inputs, f"{name}.out", axis=-1, epsilon=norm.epsilon)


def _embed(writer: _Writer, decoder: Decoder) -> str:
    embedded = writer.node("Gather", [writer.constant("token", decoder.token), "tokens"], "token.out")
    if decoder.position is None:
        return embedded
    table = writer.constant("position", decoder.position)
    positions = writer.node("Gather", [table, _positions(writer, decoder.max_length)], "position.out")
    return writer.node("Add", [embedded, positions], "embedded")


def _positions(writer: _Writer, max_length: int) -> str:
    """seqlens_k + 1 - new + (0 .. new - 1), kept inside the table for slots that hold nothing."""
    zero, one = writer.constant("zero", np.array(0)), writer.constant("one", np.array(1))
    writer.node("Shape", ["tokens"], "new_axis", start=1, end=2)
    new = writer.node("Squeeze", ["new_axis"], "new")
    steps = writer.node("Range", [zero, new, one], "steps")
    last = writer.node("Cast", ["seqlens_k"], "last", to=TensorProto.INT64)
    first = writer.node("Sub", [writer.node("Add", [last, one], "filled"), new], "first")
    column = writer.node("Unsqueeze", [first, writer.constant("axis", np.array([1]))], "column")
    return writer.node(
        "Clip",
        [
            writer.node("Add", [column, steps], "unclipped"),
            zero,
            writer.constant("end", np.array(max_length - 1)),
        ],
        "positions",
    )


def _block(writer: _Writer, decoder: Decoder, block: DecoderBlock, index: int, x: str) -> str:
    name = f"block_{index}"
    packed = writer.linear(
        f"{name}.qkv", block.qkv, writer.norm(f"{name}.norm_attention", block.norm_attention, x)
    )
    mixed = _attention(writer, decoder, index, packed)
    x = writer.node("Add", [x, writer.linear(f"{name}.project", block.project, mixed)], f"{name}.attended")
    hidden = _mlp(writer, f"{name}.mlp", block.mlp, writer.norm(f"{name}.norm_mlp", block.norm_mlp, x))
    return writer.node("Add", [x, hidden], f"{name}.out")


def _attention(writer: _Writer, decoder: Decoder, index: int, packed: str) -> str:
    inputs = [
        packed,
        "",
        "",
        f"past_key_{index}",
        f"past_value_{index}",
        "seqlens_k",
        "total_sequence_length",
    ]
    if decoder.rotary is not None:
        if index == 0:
            writer.constant("cosines", decoder.rotary.cosines)
            writer.constant("sines", decoder.rotary.sines)
        inputs += ["cosines", "sines"]
    mixed = f"block_{index}.mixed"
    writer.nodes.append(
        helper.make_node(
            "GroupQueryAttention",
            inputs,
            [mixed, f"present_key_{index}", f"present_value_{index}"],
            name=mixed,
            domain="com.microsoft",
            num_heads=decoder.heads,
            kv_num_heads=decoder.kv_heads,
            do_rotary=int(decoder.rotary is not None),
        )
    )
    return mixed


def _mlp(writer: _Writer, name: str, mlp: Mlp, x: str) -> str:
    up = writer.linear(f"{name}.up", mlp.up, x)
    if mlp.gate is None:
        hidden = writer.node("Gelu", [up], f"{name}.hidden", approximate=mlp.approximate)
    else:
        gate = writer.linear(f"{name}.gate", mlp.gate, x)
        opened = writer.node(
            "Mul", [gate, writer.node("Sigmoid", [gate], f"{name}.opening")], f"{name}.opened"
        )
        hidden = writer.node("Mul", [opened, up], f"{name}.hidden")
    return writer.linear(f"{name}.down", mlp.down, hidden)


def _cache_values(decoder: Decoder, when: str) -> list[onnx.ValueInfoProto]:
    shape: list[str | int | None] = ["rows", decoder.kv_heads, decoder.max_length, decoder.head_dim]
    element = helper.np_dtype_to_tensor_dtype(decoder.token.dtype)
    names = [f"{when}_{part}_{i}" for i in range(len(decoder.blocks)) for part in ("key", "value")]
    return [helper.make_tensor_value_info(name, element, shape) for name in names]


def _inputs(decoder: Decoder) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["rows", "new"]),
        helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["rows"]),
        helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, []),
        *_cache_values(decoder, "past"),
    ]


def _outputs(decoder: Decoder) -> list[onnx.ValueInfoProto]:
    element = helper.np_dtype_to_tensor_dtype(decoder.token.dtype)
    shape = ["rows", "new", decoder.head.weight.shape[1]]
    return [helper.make_tensor_value_info("logits", element, shape), *_cache_values(decoder, "present")]
