from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graph.quantize import Bits, Quantization, quantize_graph, quantized, restored


@pytest.mark.parametrize(("bits", "worst"), [(8, 1 / 254), (4, 1 / 10)])
def test_every_weight_is_within_half_a_step_of_its_scale(bits: Bits, worst: float) -> None:
    weight = np.random.default_rng(0).normal(size=(40, 70)).astype(np.float32)
    packed = quantized(weight, Quantization(bits, 32))
    blocks = np.pad(np.abs(weight), ((0, 0), (0, 26))).reshape(40, 3, 32).max(axis=2)
    error = np.pad(np.abs(restored(packed) - weight), ((0, 0), (0, 26))).reshape(40, 3, 32).max(axis=2)
    # 4-bit scales may clip the largest value of a block by a fifth, where that lowers the squared error.
    assert (error <= blocks * (worst * 1.01 if bits == 8 else 0.2 + worst)).all()


def test_searched_scales_have_less_error_than_covering_ones() -> None:
    weight = np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)
    searched = np.square(restored(quantized(weight, Quantization(4))) - weight).mean()
    largest = np.take_along_axis(
        weight.reshape(64, 8, 32), np.abs(weight).reshape(64, 8, 32).argmax(axis=2)[..., None], axis=2
    )
    scales = -largest / 8
    covering = np.clip(np.rint(weight.reshape(64, 8, 32) / scales), -8, 7) * scales
    assert searched < 0.95 * np.square(covering.reshape(64, 256) - weight).mean()


def test_blocks_of_8_bits_are_longer_than_those_of_4() -> None:
    weight = np.random.default_rng(0).normal(size=(20, 256)).astype(np.float32)
    assert quantized(weight, Quantization(8)).scales.shape == (20, 4)
    assert quantized(weight, Quantization(4)).scales.shape == (20, 8)
    assert quantized(weight, Quantization(4, 64)).scales.shape == (20, 4)


def two_products() -> tuple[onnx.ModelProto, np.ndarray]:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(64, 96)).astype(np.float32), rng.normal(size=(32, 96)).astype(np.float32)
    bias = rng.normal(size=32).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"]),
        helper.make_node("Gemm", ["h", "second", "bias"], ["y"], transB=1),
    ]
    held = [numpy_helper.from_array(v, n) for v, n in ((first, "first"), (second, "second"), (bias, "bias"))]
    shapes = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", s]) for n, s in (("x", 64), ("y", 32))
    ]
    graph = helper.make_graph(nodes, "g", shapes[:1], shapes[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model, rng.normal(size=(5, 64)).astype(np.float32)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


def test_any_graph_keeps_its_meaning_and_loses_its_float_matrices() -> None:
    model, x = two_products()
    wanted = run(model, x)
    assert quantize_graph(model, Quantization(8)) == 2
    assert {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT} == {
        "bias",
        "h.scales",
        "y.scales",
    }
    found = run(model, x)
    assert 0 < np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()
    np.testing.assert_array_equal(np.concatenate([run(model, row[None]) for row in x]), found)


def test_products_of_two_inputs_stay_as_they_are() -> None:
    model, _ = two_products()
    model.graph.node[0].input[1] = "x"
    model.graph.node[1].attribute.append(helper.make_attribute("alpha", 0.5))
    assert quantize_graph(model, Quantization(8)) == 0
