from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from export.graph.interface import onnx_component
from export.graph.onnx import Signature, export_onnx, to_bytes
from export.graph.save import save_onnx
from export.graph.torchscript import DeviceLiteralError, export_torchscript
from export.graph.vjp import VectorJacobian, export_vjp


class Small(nn.Module):
    """A strided convolution, whose product needs output padding, and a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, stride=2, padding=1)
        self.linear = nn.Linear(3 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.tanh(self.linear(torch.tanh(self.conv(x)).flatten(1)))
        return out


def signature(*, with_cotangent: bool = False) -> Signature:
    x = {"x": torch.randn(3, 1, 8, 8)}
    if with_cotangent:
        return Signature({**x, "cotangent": torch.randn(3, 5)}, ("y", "x_vjp"))
    return Signature(x, ("y",))


def run(model: onnx.ModelProto, inputs: list[Tensor]) -> list[np.ndarray]:
    session = ort.InferenceSession(to_bytes(model), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, {n: v.numpy() for n, v in zip(names, inputs, strict=True)}))


def test_exporting_twice_gives_the_same_bytes() -> None:
    torch.manual_seed(0)
    network = Small()
    first, second = (to_bytes(export_onnx(network, signature())) for _ in range(2))
    assert first == second


def test_names_and_axes_are_those_asked_for() -> None:
    component = onnx_component(export_onnx(Small(), signature()), "small.onnx")
    assert component["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["rows", 1, 8, 8]}]
    assert component["outputs"] == [{"name": "y", "dtype": "float32", "shape": ["rows", 5]}]


def test_large_weights_go_straight_to_a_file_beside_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network, x = Small(), torch.randn(4, 1, 8, 8)
    monkeypatch.setattr("export.graph.onnx.LARGE_BYTES", 0)
    model = export_onnx(network, signature(), beside=tmp_path / "small.onnx")
    assert save_onnx(model, tmp_path, "small.onnx") == ["small.onnx", "small.onnx.data"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "rows"
    session = ort.InferenceSession(str(tmp_path / "small.onnx"), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], network(x), rtol=0, atol=1e-5)


def test_weights_beside_a_graph_are_as_readable_as_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.graph.save.LEAST_EXTERNAL_BYTES", 0)
    model = export_onnx(Small(), signature())
    names = save_onnx(model, tmp_path, "small.onnx", inline_bytes=0)
    assert names == ["small.onnx", "small.onnx.data"]
    modes = {(tmp_path / name).stat().st_mode for name in names}
    assert len(modes) == 1


@pytest.mark.parametrize("rows", [1, 4])
def test_product_is_autograds_at_other_batch_sizes(rows: int) -> None:
    torch.manual_seed(0)
    network = Small()
    model = export_vjp(network, signature(with_cotangent=True), "x")
    inputs = [torch.randn(rows, 1, 8, 8), torch.randn(rows, 5)]
    wanted = VectorJacobian(network, signature(with_cotangent=True), "x")(*inputs)
    for found, value in zip(run(model, inputs), wanted, strict=True):
        np.testing.assert_allclose(found, value.numpy(), atol=1e-6)


def test_torchscript_holds_no_source_locations_and_gives_the_same() -> None:
    torch.manual_seed(0)
    network, x = Small(), torch.randn(4, 1, 8, 8)
    data = export_torchscript(network, {"x": x})
    assert b"debug_pkl" not in data
    torch.testing.assert_close(torch.jit.load(io.BytesIO(data))(x), network(x))  # type: ignore[no-untyped-call]


def test_torchscript_bound_to_a_device_is_refused() -> None:
    class Bound(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.arange(3, device=x.device)

    with pytest.raises(DeviceLiteralError, match="cpu"):
        export_torchscript(Bound(), {"x": torch.zeros(2, 3)})
