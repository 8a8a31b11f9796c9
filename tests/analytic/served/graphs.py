"""Networks with closed-form truth as ONNX graphs, written node by node: no training, no exporter."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, parser

Floats = NDArray[np.float64]
Constant = Floats | float

_HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'
_AXES = {"first": [1], "second": [2], "last": [-1]}


def graph(text: str, constants: Mapping[str, Constant]) -> onnx.ModelProto:
    """A model from its textual form; ``constants`` become float32 initializers."""
    model = parser.parse_model(_HEADER + text)
    found: dict[str, NDArray[np.generic]] = {n: np.asarray(v, np.float32) for n, v in constants.items()}
    axes = {name: np.asarray(value, np.int64) for name, value in _AXES.items()}
    used = {name for node in model.graph.node for name in node.input}
    for name, value in {**found, **axes}.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(value, name))
    onnx.checker.check_model(model)
    return model


def table_denoiser(gains: Floats, offsets: Floats) -> onnx.ModelProto:
    """e = K_t x - b_t from tables over the training steps: ``gains`` [T, D, D], ``offsets`` [T, D]."""
    size = offsets.shape[1]
    text = f"""
    vp (float[rows, {size}] x, int64[rows] t) => (float[rows, {size}] prediction) {{
        gain = Gather(gains, t)
        offset = Gather(offsets, t)
        column = Unsqueeze(x, last)
        product = MatMul(gain, column)
        flat = Squeeze(product, last)
        prediction = Sub(flat, offset)
    }}"""
    return graph(text, {"gains": gains, "offsets": offsets})


_VE = """
        sigma = Exp(level)
        variance = Mul(sigma, sigma)
        power = Add(variance, eigenvalues)
        gap = Sub(x, mean)
        turned = MatMul(gap, vectors)
        scaled = Div(turned, power)
        back = MatMul(scaled, transposed)
        prediction = Neg(back)"""

_FLOW = """
        alpha = Sub(one, level)
        signal = Mul(alpha, eigenvalues)
        signal2 = Mul(alpha, signal)
        noise2 = Mul(level, level)
        power = Add(signal2, noise2)
        shifted = Mul(alpha, mean)
        gap = Sub(x, shifted)
        turned = MatMul(gap, vectors)
        rate = Sub(level, signal)
        slope = Div(rate, power)
        scaled = Mul(turned, slope)
        back = MatMul(scaled, transposed)
        prediction = Sub(back, mean)"""

_EDM = """
        fourfold = Mul(level, four)
        sigma = Exp(fourfold)
        variance = Mul(sigma, sigma)
        total = Add(variance, data_variance)
        rms = Sqrt(total)
        state = Mul(x, rms)
        gap = Sub(state, mean)
        turned = MatMul(gap, vectors)
        power = Add(variance, eigenvalues)
        kept = Div(eigenvalues, power)
        scaled = Mul(turned, kept)
        back = MatMul(scaled, transposed)
        clean = Add(back, mean)
        skip = Div(data_variance, total)
        skipped = Mul(skip, state)
        residual = Sub(clean, skipped)
        numerator = Mul(sigma, data_sd)
        out = Div(numerator, rms)
        prediction = Div(residual, out)"""

_GAUSSIANS = {"ve": _VE, "flow": _FLOW, "edm": _EDM}


def gaussian_denoiser(
    kind: str, mean: Floats, covariance: Floats, sigma_data: float = 0.5
) -> onnx.ModelProto:
    """The exact predictor of N(mean, covariance): score (ve), velocity (flow) or Karras' raw F (edm)."""
    values, vectors = np.linalg.eigh(covariance)
    size = len(mean)
    text = f"""
    gaussian (float[rows, {size}] x, float[rows] t) => (float[rows, {size}] prediction) {{
        level = Unsqueeze(t, last)
        {_GAUSSIANS[kind]}
    }}"""
    constants: dict[str, Constant] = {
        "mean": mean, "eigenvalues": values, "vectors": vectors, "transposed": vectors.T, "one": 1.0,
        "four": 4.0, "data_sd": sigma_data, "data_variance": sigma_data**2,
    }  # fmt: skip
    return graph(text, constants)


def mixture_denoiser(weights: Floats, means: Floats, covariances: Floats) -> onnx.ModelProto:
    """The exact velocity of a Gaussian mixture: [K], [K, D], [K, D, D]."""
    values, vectors = np.linalg.eigh(covariances)
    size = means.shape[1]
    text = f"""
    mixture (float[rows, {size}] x, float[rows] t) => (float[rows, {size}] prediction) {{
        column = Unsqueeze(t, last)
        level = Unsqueeze(column, last)
        alpha = Sub(one, level)
        signal = Mul(alpha, eigenvalues)
        signal2 = Mul(alpha, signal)
        noise2 = Mul(level, level)
        power = Add(signal2, noise2)
        shifted = Mul(alpha, means)
        state = Unsqueeze(x, first)
        gap = Sub(state, shifted)
        gap_row = Unsqueeze(gap, second)
        turned_row = MatMul(gap_row, vectors)
        turned = Squeeze(turned_row, second)
        square = Mul(turned, turned)
        distance = Div(square, power)
        width = Log(power)
        terms = Add(distance, width)
        doubled = ReduceSum <keepdims = 0> (terms, second)
        halved = Mul(doubled, half)
        evidence = Sub(log_weights, halved)
        share = Softmax <axis = -1> (evidence)
        rate = Sub(level, signal)
        slope = Div(rate, power)
        scaled = Mul(turned, slope)
        scaled_row = Unsqueeze(scaled, second)
        back_row = MatMul(scaled_row, transposed)
        back = Squeeze(back_row, second)
        velocity = Sub(back, means)
        share_column = Unsqueeze(share, last)
        weighed = Mul(velocity, share_column)
        prediction = ReduceSum <keepdims = 0> (weighed, first)
    }}"""
    constants: dict[str, Constant] = {
        "eigenvalues": values, "vectors": vectors, "transposed": vectors.transpose(0, 2, 1), "means": means,
        "log_weights": np.log(weights), "one": 1.0, "half": 0.5,
    }  # fmt: skip
    return graph(text, constants)


def coupled_denoiser(size: int) -> onnx.ModelProto:
    """A network that must not be served unnoticed: every row's velocity depends on all rows of the run."""
    text = f"""
    coupled (float[rows, {size}] x, float[rows] t) => (float[rows, {size}] prediction) {{
        level = Unsqueeze(t, last)
        largest = ReduceMax <axes = [0], keepdims = 1> (x)
        gap = Sub(x, largest)
        prediction = Mul(gap, level)
    }}"""
    return graph(text, {})


def affine(source: str, target: str, matrix: Floats, offset: Floats) -> onnx.ModelProto:
    """target = source matrix + offset; matrix [in, out]."""
    inputs, outputs = matrix.shape
    text = f"""
    affine (float[rows, {inputs}] {source}) => (float[rows, {outputs}] {target}) {{
        product = MatMul({source}, matrix)
        {target} = Add(product, offset)
    }}"""
    return graph(text, {"matrix": matrix, "offset": offset})


def affine_product(cotangent: str, matrix: Floats, offset: Floats) -> onnx.ModelProto:
    """The generator x = latent matrix + offset, and its vector-Jacobian product."""
    inputs, outputs = matrix.shape
    text = f"""
    product (float[rows, {inputs}] latent, float[rows, {outputs}] {cotangent})
        => (float[rows, {outputs}] x, float[rows, {inputs}] latent_vjp) {{
        product = MatMul(latent, matrix)
        x = Add(product, offset)
        latent_vjp = MatMul({cotangent}, transposed)
    }}"""
    return graph(text, {"matrix": matrix, "transposed": matrix.T, "offset": offset})


def posterior_encoder(matrix: Floats, offset: Floats, log_variance: Floats) -> onnx.ModelProto:
    """mean = x matrix + offset, and a constant log variance."""
    inputs, outputs = matrix.shape
    text = f"""
    encoder (float[rows, {inputs}] x) => (float[rows, {outputs}] mean, float[rows, {outputs}] log_variance) {{
        product = MatMul(x, matrix)
        mean = Add(product, offset)
        zero = Sub(mean, mean)
        log_variance = Add(zero, constant)
    }}"""
    return graph(text, {"matrix": matrix, "offset": offset, "constant": log_variance})


def chain_scorer(log_laws: Floats) -> onnx.ModelProto:
    """logits = table[tokens]; the last line of ``log_laws`` [V + 1, V] is the begin symbol's."""
    symbols = log_laws.shape[1]
    text = f"""
    chain (int64[rows, length] tokens) => (float[rows, length, {symbols}] logits) {{
        logits = Gather(table, tokens)
    }}"""
    return graph(text, {"table": log_laws})
