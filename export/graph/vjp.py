"""A network together with its vector-Jacobian product, as one ONNX graph.

Inputs: the network's, then ``cotangent`` (several outputs: ``cotangent_NAME`` each), shaped like the
output. Outputs: the network's, then ``WRT_vjp`` = cotangent^T d output / d WRT, shaped like the input WRT.
With a standard normal cotangent this is what Hutchinson's estimator of a divergence needs (Grathwohl et
al. 2019); with the gradient of a loss it is that loss's gradient.

The product is traced down to plain tensor operations before it is exported, so no runtime needs autograd.
Rows must not depend on one another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from export.graph.onnx import Signature, export_onnx


def cotangents(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], generator: torch.Generator
) -> dict[str, Tensor]:
    """Standard normal cotangents for every output, by the names that the graph gives its inputs."""
    with torch.no_grad():
        values = _several(module(*inputs.values()))
    names = ["cotangent"] if len(outputs) == 1 else [f"cotangent_{name}" for name in outputs]
    return {
        name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in zip(names, values, strict=True)
    }


def vjp(module: nn.Module, inputs: int, index: int) -> Callable[..., tuple[Tensor, ...]]:
    """A function of ``inputs`` inputs and the cotangents: the outputs, and the product for one input."""

    def product(*arguments: Tensor) -> tuple[Tensor, ...]:
        own = list(arguments[:inputs])
        with torch.enable_grad():
            own[index] = own[index].detach().requires_grad_()
            outputs = _several(module(*own))
            (gradient,) = torch.autograd.grad(outputs, own[index], list(arguments[inputs:]))
        return (*(output.detach() for output in outputs), gradient.detach())

    return product


class VectorJacobian(nn.Module):
    """The same as a module, for comparison with its graph; inputs are those of the signature."""

    def __init__(self, module: nn.Module, signature: Signature, wrt: str) -> None:
        super().__init__()
        self.module = module
        own = len(signature.inputs) - len(signature.outputs) + 1
        self._product = vjp(module, own, list(signature.inputs).index(wrt))

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """The outputs, then the product."""
        return self._product(*arguments)


def export_vjp(module: nn.Module, signature: Signature, wrt: str) -> onnx.ModelProto:
    """Write the graph; ``signature`` names the cotangents and the product too.

    Parameters are frozen on the way. Raises what ``export_onnx`` raises.
    """
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    product = VectorJacobian(module.eval(), signature, wrt)
    with sdpa_kernel(SDPBackend.MATH):
        trace = make_fx(
            product.forward,
            decomposition_table=_decompositions(),
            tracing_mode="symbolic",
            _allow_non_fake_inputs=True,  # buffers
        )
        traced = trace(*signature.inputs.values())
    return export_onnx(traced, signature)


def _several(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _decompositions() -> dict[Any, Callable[..., Any]]:
    return {
        **core_aten_decompositions(),
        torch.ops.aten.convolution_backward.default: _convolution_backward,
        torch.ops.aten.avg_pool2d_backward.default: _avg_pool2d_backward,
    }


def _avg_pool2d_backward(
    grad: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """A mean over windows is a convolution of each channel with equal weights; this is its transpose."""
    assert not ceil_mode, "average pooling with ceil_mode, whose product is not written here"
    assert count_include_pad or not any(padding), "average pooling that leaves out its padding"
    channels, weight = x.shape[1], 1.0 / (divisor or kernel[0] * kernel[1])
    weights = x.new_full((channels, 1, *kernel), weight)
    back, _, _ = _convolution_backward(
        grad,
        x,
        weights,
        None,
        stride or kernel,
        padding,
        [1, 1],
        False,
        [0, 0],
        channels,
        [True, False, False],
    )
    return back


def _convolution_backward(  # noqa: PLR0913
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    output_mask: list[bool],
) -> tuple[Tensor, None, None]:
    """The gradient of the input alone: the convolution's transpose, padded to the input's size.

    Parameters are frozen, so the other gradients are never asked for. The transpose of a transposed
    convolution is the plain convolution with the same weights (Dumoulin and Visin 2016, section 4).
    """
    assert output_mask[1:] == [False, False]
    convolution = torch.ops.aten.convolution.default
    zeros = [0] * len(stride)
    if transposed:
        back = convolution(grad, weight, None, stride, padding, dilation, False, zeros, groups)
        return back, None, None
    missing = [
        x.shape[axis + 2]
        - ((grad.shape[axis + 2] - 1) * stride[axis] - 2 * padding[axis])
        - (dilation[axis] * (weight.shape[axis + 2] - 1) + 1)
        for axis in range(len(stride))
    ]
    back = convolution(grad, weight, None, stride, padding, dilation, True, missing, groups)
    return back, None, None
