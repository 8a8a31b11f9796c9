"""Weight-only quantisation: matrices as 8- or 4-bit integers with one scale per block of inputs.

Matrices become ``com.microsoft::MatMulNBits``. Activations stay in float outside the product; inside it
(accuracy level 4) each row is rounded to 8 bits by itself, in the same blocks, so no row sees another one.
With 4 bits, scales are those of least squared error among a few, which costs nothing at run time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Bits = Literal[4, 8]
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)  # of the largest value that a 4-bit scale covers
ROWS_AT_A_TIME = 4096  # outputs whose scales are searched together
DEFAULT_BLOCKS: dict[Bits, int] = {8: 64, 4: 32}
LEAST_SIDE = 16  # smaller matrices stay as they are


@dataclass(frozen=True)
class Quantization:
    """How matrices are stored; ``accuracy_level`` is ONNX Runtime's (4: int8 products, 1: float32).

    ``block``: inputs of one scale; None: 64 for 8 bits, 32 for 4. In longer ones,
    rows depend on their number on processors with AVX-512 and VNNI (ONNX Runtime 1.31).
    """

    bits: Bits
    block: int | None = None
    accuracy_level: int = 4

    @property
    def block_size(self) -> int:
        """Inputs of one scale."""
        return self.block or DEFAULT_BLOCKS[self.bits]


@dataclass(frozen=True)
class Packed:
    """One matrix for MatMulNBits: ``values`` [out, blocks, block * bits / 8], ``scales`` [out, blocks]."""

    values: Bytes
    scales: Floats
    attributes: dict[str, int]


def quantized(weight: Floats, how: Quantization) -> Packed:
    """Round ``weight`` [out, in] to integers around 2^(bits - 1), symmetric in each block of inputs."""
    outputs, inputs = weight.shape
    blocks = -(-inputs // how.block_size)
    values = np.empty((outputs, blocks, how.block_size * how.bits // 8), np.uint8)
    scales = np.empty((outputs, blocks), np.float32)
    for start in range(0, outputs, ROWS_AT_A_TIME):
        part = slice(start, start + ROWS_AT_A_TIME)
        blocked = _blocked(weight[part], blocks, how.block_size)
        scales[part] = _scales(blocked, how.bits)
        values[part] = _pack(_integers(blocked, scales[part], how.bits), how.bits)
    attributes = {
        "K": inputs,
        "N": outputs,
        "bits": how.bits,
        "block_size": how.block_size,
        "accuracy_level": how.accuracy_level,
    }
    return Packed(values, scales, attributes)


def restored(packed: Packed) -> Floats:
    """The float matrix [out, in] that a packed one stands for."""
    bits = packed.attributes["bits"]
    values = packed.values
    if bits == 4:
        values = np.stack((values & 15, values >> 4), axis=-1).reshape(*values.shape[:2], -1)
    blocked = (values.astype(np.float32) - 2 ** (bits - 1)) * packed.scales[..., None]
    whole: Floats = blocked.reshape(len(blocked), -1)[:, : packed.attributes["K"]]
    return whole


def _blocked(weight: Floats, blocks: int, block: int) -> Floats:
    padded = np.zeros((len(weight), blocks * block), np.float32)
    padded[:, : weight.shape[1]] = weight
    return padded.reshape(len(weight), blocks, block)


def _scales(blocked: Floats, bits: Bits) -> Floats:
    """[out, blocks]; 8 bits cover the largest value, 4 bits what gives the least squared error."""
    largest = np.take_along_axis(blocked, np.abs(blocked).argmax(axis=-1)[..., None], axis=-1)[..., 0]
    if bits == 8:
        return _positive(np.abs(largest) / 127)
    # The value of largest size gets the integer 0, whose range is one step longer.
    best = _positive(-largest / 8)
    error = _squared_error(blocked, best, bits)
    for shrink in SHRINKS[1:]:
        candidate = _positive(-largest * (shrink / 8))
        found = _squared_error(blocked, candidate, bits)
        best, error = np.where(found < error, candidate, best), np.minimum(found, error)
    return best


def _positive(scale: npt.NDArray[np.floating[Any]]) -> Floats:
    """No scale is zero; its sign stays."""
    return np.where(scale == 0, np.float32(1), scale).astype(np.float32)


def _squared_error(blocked: Floats, scales: Floats, bits: Bits) -> Floats:
    rounded = (_integers(blocked, scales, bits).astype(np.float32) - 2 ** (bits - 1)) * scales[..., None]
    found: Floats = np.square(rounded - blocked).sum(axis=-1)
    return found


def _integers(blocked: Floats, scales: Floats, bits: Bits) -> Bytes:
    centre = 2 ** (bits - 1)
    rounded: Bytes = np.clip(np.rint(blocked / scales[..., None]) + centre, 0, 2 * centre - 1).astype(
        np.uint8
    )
    return rounded


def _pack(values: Bytes, bits: Bits) -> Bytes:
    """Two 4-bit values a byte, the first in the low half."""
    if bits == 8:
        return values
    high = np.left_shift(values[..., 1::2], 4, dtype=np.uint8)
    return np.asarray(values[..., ::2] | high, np.uint8)


def quantize_graph(model: onnx.ModelProto, how: Quantization) -> int:
    """Replace, in place, every product with a constant matrix of any ONNX graph; how many were replaced.

    MatMul with a constant [in, out], and Gemm with one of either orientation whose alpha and beta are 1.
    Weights must lie inside the graph (``onnx.load_external_data_for_model``).
    """
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    replaced: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        weight = _matrix(node, held)
        if weight is None:
            nodes.append(node)
            continue
        replaced.add(node.input[1])
        nodes += _replacement(model.graph, node, quantized(weight, how))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _forget(model.graph, replaced)
    if replaced and not any(opset.domain == "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return sum(node.op_type == "MatMulNBits" for node in nodes)


def _matrix(node: onnx.NodeProto, held: dict[str, onnx.TensorProto]) -> Floats | None:
    """The constant matrix of a product [out, in], float32; None where there is none to replace."""
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in held:
        return None
    tensor = held[node.input[1]]
    settings: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0 and not settings.get("transA", 0)
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    if not plain or len(tensor.dims) != 2 or min(tensor.dims) < LEAST_SIDE or tensor.data_type not in floats:
        return None
    weight = np.asarray(numpy_helper.to_array(tensor), np.float32)
    return weight if settings.get("transB", 0) else np.ascontiguousarray(weight.T)


def _replacement(graph: onnx.GraphProto, node: onnx.NodeProto, packed: Packed) -> list[onnx.NodeProto]:
    """MatMulNBits with the product's inputs and output, and an Add where a Gemm had a third input."""
    name = node.output[0]
    held = {tensor.name: tensor for tensor in graph.initializer}
    scales = packed.scales.astype(helper.tensor_dtype_to_np_dtype(held[node.input[1]].data_type))
    graph.initializer.append(numpy_helper.from_array(packed.values, f"{name}.packed"))
    graph.initializer.append(numpy_helper.from_array(scales, f"{name}.scales"))
    biased = len(node.input) > 2 and bool(node.input[2])
    product = f"{name}.product" if biased else name
    inputs = [node.input[0], f"{name}.packed", f"{name}.scales"]
    settings: dict[str, Any] = {"name": product, "domain": "com.microsoft", **packed.attributes}
    made = helper.make_node("MatMulNBits", inputs, [product], **settings)
    if not biased:
        return [made]
    return [made, helper.make_node("Add", [product, node.input[2]], [name], name=f"{name}.biased")]


def _forget(graph: onnx.GraphProto, names: set[str]) -> None:
    """Drop weights that nothing reads any more."""
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name not in names or tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
