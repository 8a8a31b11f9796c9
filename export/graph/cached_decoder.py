"""A decoder-only transformer as an ONNX graph that keeps its key/value cache in place.

Inputs: ``tokens`` int64 [rows, new]; ``seqlens_k`` int32 [rows] (tokens in the cache after the call, minus
1); ``total_sequence_length`` int32 scalar (of the longest row); per layer i ``past_key_i`` and
``past_value_i`` [rows, kv_heads, max_length, head_dim]. Outputs: ``logits`` [rows, new, vocabulary];
``present_key_i`` and ``present_value_i``, meant to be bound to the buffers of the past. Attention is
ONNX Runtime's ``com.microsoft::GroupQueryAttention``; more than one new token needs either one row, or
rows whose caches are empty (shorter ones padded at their end).

With ``selective`` there are two more inputs, ``wanted`` int64 [predictions] (indices row * new + i) and
``targets`` int64 [predictions]; ``logits`` is [predictions, vocabulary], and ``log_prob`` [predictions] is
that of the targets in nats, both float32. A prefix is then read without any prediction, whole rows are scored
where asked, and since the caches' length is open, the same graph scores rows in buffers of their own.

The graph is written node by node from a description (``export.graph.decoder``), so that a network of any
library whose blocks have these parts can be written without tracing it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from export.graph.decoder import (
    Array,
    Decoder,
    DecoderBlock,
    Linear,
    Mlp,
    Norm,
    Rotary,
    Stored,
    Weight,
)
from export.graph.nodes import Writer
from export.graph.onnx import OPSET, finish
from export.graph.quantize import Quantization
from export.graph.residual import Residual
from export.graph.store import ELEMENTS, Store

__all__ = [
    "Array",
    "Decoder",
    "DecoderBlock",
    "Linear",
    "Mlp",
    "Norm",
    "Rotary",
    "Stored",
    "Weight",
    "build_cached_decoder",
]

IR_VERSION = 10
RMS_OPSET = 23  # the first with RMSNormalization
QUICK_GELU = 1.702


def build_cached_decoder(
    decoder: Decoder,
    *,
    selective: bool = False,
    element: torch.dtype | None = None,
    store: Store | None = None,
    quantization: Quantization | None = None,
) -> onnx.ModelProto:
    """Write the graph; weights, caches and logits have the dtype ``element`` (None: that of ``token``)."""
    writer = Writer(element or _own_element(decoder), quantization=quantization)
    if store is not None:
        writer.store = store
    stream = Residual(writer, _embed(writer, decoder))
    for index, block in enumerate(decoder.blocks):
        _block(stream, decoder, block, index)
    _head(writer, decoder, stream.normed("norm_out", decoder.norm_out), selective)
    graph = helper.make_graph(
        writer.nodes,
        "cached_decoder",
        _inputs(writer, decoder, selective),
        _outputs(writer, decoder, selective),
        initializer=writer.initializers,
    )
    opsets = [helper.make_opsetid("", _opset(decoder)), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    return finish(model, check=store is None)


def _own_element(decoder: Decoder) -> torch.dtype:
    token = decoder.token
    return torch.float32 if isinstance(token, Stored) else torch.from_numpy(token[:0]).dtype


def _opset(decoder: Decoder) -> int:
    norms = [decoder.norm_out, *(b.query_norm for b in decoder.blocks if b.query_norm is not None)]
    return RMS_OPSET if any(norm.bias is None for norm in norms) else OPSET


def _embed(writer: Writer, decoder: Decoder) -> str:
    embedded = writer.node("Gather", [writer.weight("token", decoder.token), "tokens"], "token.out")
    if decoder.embedding_scale is not None:
        scale = writer.weight("embedding_scale", np.array(decoder.embedding_scale, np.float32))
        embedded = writer.node("Mul", [embedded, scale], "token.scaled")
    if decoder.position is None:
        return embedded
    table = writer.weight("position", decoder.position)
    positions = writer.node("Gather", [table, _positions(writer, decoder.max_length)], "position.out")
    return writer.node("Add", [embedded, positions], "embedded")


def _positions(writer: Writer, max_length: int) -> str:
    """seqlens_k + 1 - new + (0 .. new - 1), kept inside the table for slots that hold nothing.

    Rows that start empty count from 0, also where shorter ones are padded at their end.
    """
    zero, one = writer.constant("zero", np.array(0)), writer.constant("one", np.array(1))
    writer.node("Shape", ["tokens"], "new_axis", start=1, end=2)
    new = writer.node("Squeeze", ["new_axis"], "new")
    steps = writer.node("Range", [zero, new, one], "steps")
    last = writer.node("Cast", ["seqlens_k"], "last", to=TensorProto.INT64)
    first = writer.node("Sub", [writer.node("Add", [last, one], "filled"), new], "first_or_less")
    first = writer.node("Max", [first, zero], "first")
    column = writer.node("Unsqueeze", [first, writer.constant("axis", np.array([1]))], "column")
    end = writer.constant("end", np.array(max_length - 1))
    return writer.node("Clip", [writer.node("Add", [column, steps], "unclipped"), zero, end], "positions")


def _block(stream: Residual, decoder: Decoder, block: DecoderBlock, index: int) -> None:
    name, writer = f"block_{index}", stream.writer
    attended = stream.normed(f"{name}.norm_attention", block.norm_attention)
    read = attended
    if block.parallel and block.norm_mlp is not None:
        read = writer.norm(f"{name}.norm_mlp", block.norm_mlp, stream.x)
    packed = writer.linear(f"{name}.qkv", block.qkv, attended)
    stream.add(f"{name}.project", block.project, _attention(writer, decoder, block, index, packed))
    if not block.parallel:
        assert block.norm_mlp is not None
        read = stream.normed(f"{name}.norm_mlp", block.norm_mlp)
    hidden = _hidden(writer, f"{name}.mlp", block.mlp, read)
    stream.add(f"{name}.mlp.down", block.mlp.down, hidden)


def _attention(writer: Writer, decoder: Decoder, block: DecoderBlock, index: int, packed: str) -> str:
    inputs = [packed, "", ""]
    if block.query_norm is not None and block.key_norm is not None:
        inputs = _normed_heads(writer, decoder, block, index, packed)
    inputs += [f"past_key_{index}", f"past_value_{index}", "seqlens_k", "total_sequence_length"]
    if decoder.rotary is not None:
        inputs += [
            writer.weight("cosines", decoder.rotary.cosines),
            writer.weight("sines", decoder.rotary.sines),
        ]
    scale = {} if block.scale is None else {"scale": block.scale}
    return writer.contrib(
        "GroupQueryAttention",
        inputs,
        [f"block_{index}.mixed", f"present_key_{index}", f"present_value_{index}"],
        num_heads=decoder.heads,
        kv_num_heads=decoder.kv_heads,
        do_rotary=int(decoder.rotary is not None),
        **scale,
    )


def _normed_heads(
    writer: Writer, decoder: Decoder, block: DecoderBlock, index: int, packed: str
) -> list[str]:
    """Query, key and value [rows, new, heads * head_dim]; the first two normed head by head."""
    name, size = f"block_{index}", decoder.head_dim
    widths = [decoder.heads * size, decoder.kv_heads * size, decoder.kv_heads * size]
    parts = [f"{name}.{part}" for part in ("query", "key", "value")]
    writer.nodes.append(
        helper.make_node(
            "Split",
            [packed, writer.constant("widths", np.array(widths))],
            parts,
            name=f"{name}.split",
            axis=-1,
        )
    )
    apart = writer.constant("apart", np.array([0, 0, -1, size]))
    together = writer.constant("together", np.array([0, 0, -1]))
    for place, norm in enumerate((block.query_norm, block.key_norm)):
        assert norm is not None
        part = parts[place]
        heads = writer.norm(f"{part}.norm", norm, writer.node("Reshape", [part, apart], f"{part}.heads"))
        parts[place] = writer.node("Reshape", [heads, together], f"{part}.normed")
    return parts


def _hidden(writer: Writer, name: str, mlp: Mlp, x: str) -> str:
    """Between the perceptron's two products."""
    if mlp.gate is not None:
        gate = _activated(writer, f"{name}.gate", mlp, writer.linear(f"{name}.gate", mlp.gate, x))
        return writer.node("Mul", [gate, writer.linear(f"{name}.up", mlp.up, x)], f"{name}.hidden")
    if mlp.act == "gelu" and mlp.approximate == "tanh" and mlp.up.bias is not None:
        product = writer.product(f"{name}.up", mlp.up, x)
        bias = writer.weight(f"{name}.up.bias", mlp.up.bias)
        return writer.contrib("FastGelu", [product, bias], [f"{name}.hidden"])
    return _activated(writer, name, mlp, writer.linear(f"{name}.up", mlp.up, x))


def _activated(writer: Writer, name: str, mlp: Mlp, x: str) -> str:
    if mlp.act == "gelu":
        return writer.node("Gelu", [x], f"{name}.gelu", approximate=mlp.approximate)
    if mlp.act == "relu":
        return writer.node("Relu", [x], f"{name}.relu")
    sharpened = x
    if mlp.act == "quick_gelu":
        factor = writer.weight("quick_gelu", np.array(QUICK_GELU, np.float32))
        sharpened = writer.node("Mul", [x, factor], f"{name}.sharpened")
    opening = writer.node("Sigmoid", [sharpened], f"{name}.opening")
    return writer.node("Mul", [x, opening], f"{name}.opened")


def _head(writer: Writer, decoder: Decoder, hidden: str, selective: bool) -> None:
    if selective or decoder.head is None:
        flat = writer.constant("flat", np.array([-1, decoder.token.shape[1]]))
        hidden = writer.node("Reshape", [hidden, flat], "flat_hidden")
    if selective:
        _select(writer, decoder, hidden)
    elif decoder.head is not None:
        writer.linear("head", decoder.head, hidden, output="logits")
    else:
        flat_logits = writer.tied_product("head", "token", decoder.token, hidden, "flat_logits")
        writer.node("Shape", ["tokens"], "token_axes")
        last = writer.constant("vocabulary_axis", np.array([decoder.vocabulary]))
        shape = writer.node("Concat", ["token_axes", last], "logits_shape", axis=0)
        writer.node("Reshape", [flat_logits, shape], "logits")


def _select(writer: Writer, decoder: Decoder, hidden: str) -> None:
    """Logits of the wanted predictions, and the targets' log-probabilities, in float32."""
    hidden = writer.node("Gather", [hidden, "wanted"], "wanted_hidden")
    narrow = writer.element != torch.float32
    logits = "own_logits" if narrow else "logits"
    if decoder.head is None:
        writer.tied_product("head", "token", decoder.token, hidden, logits)
    else:
        writer.linear("head", decoder.head, hidden, output=logits)
    if narrow:
        writer.node("Cast", [logits], "logits", to=TensorProto.FLOAT)
    law = writer.node("LogSoftmax", ["logits"], "law", axis=-1)
    column = writer.constant("axis", np.array([1]))
    chosen = writer.node(
        "GatherElements",
        [law, writer.node("Unsqueeze", ["targets", column], "target_column")],
        "chosen",
        axis=1,
    )
    writer.node("Squeeze", [chosen, column], "log_prob")


def _cache_values(writer: Writer, decoder: Decoder, when: str, selective: bool) -> list[onnx.ValueInfoProto]:
    length: str | int = "cached" if selective else decoder.max_length
    shape: list[Any] = ["rows", decoder.kv_heads, length, decoder.head_dim]
    names = [f"{when}_{part}_{i}" for i in range(len(decoder.blocks)) for part in ("key", "value")]
    return [helper.make_tensor_value_info(name, ELEMENTS[writer.element], shape) for name in names]


def _inputs(writer: Writer, decoder: Decoder, selective: bool) -> list[onnx.ValueInfoProto]:
    asked = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["predictions"])
        for name in ("wanted", "targets")
    ]
    return [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["rows", "new"]),
        helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["rows"]),
        helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, []),
        *(asked if selective else []),
        *_cache_values(writer, decoder, "past", selective),
    ]


def _outputs(writer: Writer, decoder: Decoder, selective: bool) -> list[onnx.ValueInfoProto]:
    caches = _cache_values(writer, decoder, "present", selective)
    if not selective:
        shape: list[Any] = ["rows", "new", decoder.vocabulary]
        return [helper.make_tensor_value_info("logits", ELEMENTS[writer.element], shape), *caches]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["predictions", decoder.vocabulary])
    return [logits, helper.make_tensor_value_info("log_prob", TensorProto.FLOAT, ["predictions"]), *caches]
