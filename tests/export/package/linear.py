"""A small package whose graph is real: a linear generator, latent [4] -> image [1, 2, 2]."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHT = np.linspace(-1.0, 1.0, 16, dtype=np.float32).reshape(4, 4)

SPEC: dict[str, Any] = {
    "format_version": 1,
    "name": "linear-gan",
    "family": "gan",
    "description": "A linear generator",
    "license": "Apache-2.0",
    "data": {
        "kind": "image",
        "axes": ["channel", "height", "width"],
        "shape": [1, 2, 2],
        "dtype": "uint8",
        "levels": 17,
        "transform": {"kind": "affine", "scale": [0.125], "shift": [-1.0]},
    },
    "components": {
        "generator": {
            "format": "onnx",
            "file": "generator.onnx",
            "inputs": [{"name": "latent", "dtype": "float32", "shape": ["rows", 4]}],
            "outputs": [{"name": "x", "dtype": "float32", "shape": ["rows", 1, 2, 2]}],
        }
    },
    "gan": {"latent_shape": [4]},
    "parity": {"max_abs_error": 1e-7, "max_rel_error": 3.0000000000000004e-06, "inputs": "seeded"},
}


def linear_graph(
    *, output: str = "x", latent: int = 4, elem_type: int = TensorProto.FLOAT, rows: str | int = "rows"
) -> onnx.ModelProto:
    """x = reshape(latent @ WEIGHT)."""
    weight = numpy_helper.from_array(
        WEIGHT[:latent].astype(helper.tensor_dtype_to_np_dtype(elem_type)), "weight"
    )
    shape = numpy_helper.from_array(np.array([-1, 1, 2, 2], np.int64), "shape")
    nodes = [
        helper.make_node("MatMul", ["latent", "weight"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("latent", elem_type, [rows, latent])],
        [helper.make_tensor_value_info(output, elem_type, [rows, 1, 2, 2])],
        [weight, shape],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
