from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from export.graph.onnx import Signature, export_onnx, to_bytes
from export.graph.vjp import export_vjp


class Normed(nn.Module):
    """A convolution, a group norm with weights of its own, and SiLU."""

    def __init__(self, places: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.GroupNorm(4, 8, eps=1e-3)
        with torch.no_grad():
            self.norm.weight.copy_(torch.linspace(-1.0, 2.0, 8))
            self.norm.bias.copy_(torch.linspace(0.5, -0.5, 8))
        self.places = places

    def forward(self, x: Tensor) -> Tensor:
        """[rows, 1, 6, 6] -> [rows, 8, 6, 6], or its places [rows, 8, 36]."""
        found = self.conv(x)
        normed: Tensor = self.norm(found.flatten(2) if self.places else found)
        return torch.nn.functional.silu(normed)


class Shared(Normed):
    """The normed values are wanted twice: before and after they are scaled."""

    def forward(self, x: Tensor) -> Tensor:
        """Two norms of one value, one without weights."""
        found = self.conv(x)
        bare: Tensor = torch.nn.functional.group_norm(found, 4, eps=1e-3)
        return torch.add(bare, self.norm(found))


def written(network: nn.Module) -> onnx.ModelProto:
    return export_onnx(network, Signature({"x": torch.randn(3, 1, 6, 6)}, ("y",)))


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def answer(model: onnx.ModelProto, x: Tensor) -> np.ndarray:
    session = ort.InferenceSession(to_bytes(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x.numpy()})[0])


@pytest.mark.parametrize(
    "network", [Normed(), Normed(places=True), Shared()], ids=["image", "places", "shared"]
)
@pytest.mark.parametrize("rows", [1, 5])
def test_the_graph_says_what_the_network_says(network: nn.Module, rows: int) -> None:
    x = torch.randn(rows, 1, 6, 6, generator=torch.Generator().manual_seed(rows))
    with torch.no_grad():
        wanted = network(x).numpy()
    np.testing.assert_allclose(answer(written(network), x), wanted, atol=2e-6)


def test_scale_and_shift_are_one_node_and_the_shape_a_constant() -> None:
    kinds = operators(written(Normed()))
    assert kinds["BatchNormalization"] == 1
    assert kinds["Shape"] == kinds["Add"] == 0
    assert kinds["Mul"] == 1  # of SiLU


def test_nothing_is_left_that_no_node_reads() -> None:
    graph = written(Normed()).graph
    read = {name for node in graph.node for name in node.input}
    assert {value.name for value in graph.initializer} <= read


def test_a_gradient_graph_with_norms_runs() -> None:
    network, x, cotangent = Normed(), torch.randn(3, 1, 6, 6), torch.randn(3, 8, 6, 6)
    signature = Signature({"x": x, "cotangent": cotangent}, ("y", "x_vjp"))
    session = ort.InferenceSession(to_bytes(export_vjp(network, signature, "x")))
    found = session.run(None, {"x": x.numpy(), "cotangent": cotangent.numpy()})
    given = x.clone().requires_grad_()
    value = network(given)
    (wanted,) = torch.autograd.grad(value, given, cotangent)
    np.testing.assert_allclose(found[0], value.detach().numpy(), atol=2e-6)
    np.testing.assert_allclose(found[1], wanted.numpy(), atol=2e-5)
