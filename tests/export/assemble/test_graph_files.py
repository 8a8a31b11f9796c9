"""ONNX and TorchScript files as sources: adapted, made dynamic, copied with their weights, or refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export.model import Gan, Graph, Image, Model
from export.package.errors import PackageError, Reason
from export.package.read import read_package
from export.package.run_graph import open_graph
from tests.export.assemble.nets import IMAGE, Generator, gan, refusal
from tests.export.package.linear import WEIGHT

LATENTS = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
SQUARE = Image(1, 2, 2, levels=17, data_range=(-1, 1))


def wanted(latents: NDArray[Any]) -> NDArray[Any]:
    return (latents @ WEIGHT).reshape(-1, 1, 2, 2)


def graph_file(
    path: Path,
    *,
    rows: str | int = "rows",
    shape: tuple[int, ...] = (-1, 1, 2, 2),
    weight: NDArray[Any] = WEIGHT,
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
    extra: tuple[Any, ...] = (),
    last: str = "reshape",
) -> Path:
    """z [rows, 4] -> image, as other exporters name things."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    nodes = [
        helper.make_node("MatMul", ["z", "w"], ["flat"]),
        *extra,
        helper.make_node("Reshape", [last if extra else "flat", "s"], ["img"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("z", kind, [rows, 4])],
        [helper.make_tensor_value_info("img", kind, [rows, *shape[1:]])],
        [numpy_helper.from_array(weight.astype(dtype), "w"), numpy_helper.from_array(np.array(shape), "s")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def model(file: Path, **changed: Any) -> Gan:
    named = {"inputs": {"latent": "z"}, "outputs": {"x": "img"}, **changed}
    return gan(Graph(file, **named), latent_shape=(4,), data=SQUARE)


def answer(package: Path, latents: NDArray[Any] = LATENTS) -> NDArray[Any]:
    found = read_package(package)
    run = open_graph(found.component_path("generator"), found.spec.components["generator"])
    return run({"latent": latents})["x"]


def test_a_graph_is_renamed_and_answers_the_same(tmp_path: Path) -> None:
    package = model(graph_file(tmp_path / "g.onnx")).export(tmp_path / "models", "g")
    np.testing.assert_allclose(answer(package), wanted(LATENTS), atol=1e-6)
    assert read_package(package).spec.parity.batch_invariant


@pytest.mark.parametrize("opset", [11, 21])
def test_layouts_are_adapted_in_graphs_of_any_opset(tmp_path: Path, opset: int) -> None:
    file = graph_file(tmp_path / "g.onnx", shape=(-1, 2, 2, 1), opset=opset)
    package = model(file, layout="channels_last").export(tmp_path / "models", "g")
    np.testing.assert_allclose(answer(package), wanted(LATENTS), atol=1e-6)
    file = graph_file(tmp_path / "flat.onnx", shape=(-1, 4), opset=opset)
    package = model(file, layout="flat").export(tmp_path / "models", "flat")
    np.testing.assert_allclose(answer(package), wanted(LATENTS), atol=1e-6)


def test_half_precision_is_widened_at_the_borders(tmp_path: Path) -> None:
    file = graph_file(tmp_path / "g.onnx", kind=TensorProto.FLOAT16)
    package = model(file).export(tmp_path / "models", "g")
    found = answer(package)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted(LATENTS), atol=2e-2)  # float16 has 11 bits


@pytest.mark.parametrize("rows", [1, 3])
def test_a_fixed_batch_is_made_dynamic_and_compared_with_the_file(
    tmp_path: Path, rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    package = model(graph_file(tmp_path / "g.onnx", rows=rows)).export(tmp_path / "models", "g")
    assert f"batch is fixed at {rows}; made dynamic" in capsys.readouterr().err
    np.testing.assert_allclose(answer(package, LATENTS[:2]), wanted(LATENTS[:2]), atol=1e-6)


def test_a_batch_that_is_fixed_inside_is_refused_with_the_way_to_export(tmp_path: Path) -> None:
    file = graph_file(tmp_path / "g.onnx", rows=1, shape=(1, 1, 2, 2))
    error = refusal(model(file), tmp_path / "models")
    assert "batch is fixed at 1" in str(error)
    assert "dynamic_axes={'z': {0: 'rows'}, 'img': {0: 'rows'}}" in str(error)


def test_weights_beside_a_graph_are_copied_under_the_components_name(tmp_path: Path) -> None:
    proto = onnx.load(graph_file(tmp_path / "inline.onnx"))
    onnx.save_model(
        proto, tmp_path / "g.onnx", save_as_external_data=True, location="weights.bin", size_threshold=80
    )
    package = model(tmp_path / "g.onnx").export(tmp_path / "models", "g")
    (tmp_path / "weights.bin").unlink()  # the package stands alone
    assert sorted(read_package(package).spec.files) == ["generator.onnx", "generator.weights.bin"]
    np.testing.assert_allclose(answer(package), wanted(LATENTS), atol=1e-6)


def test_missing_and_short_weight_files_are_named(tmp_path: Path) -> None:
    proto = onnx.load(graph_file(tmp_path / "inline.onnx"))
    onnx.save_model(
        proto, tmp_path / "g.onnx", save_as_external_data=True, location="w.bin", size_threshold=80
    )
    (tmp_path / "w.bin").write_bytes(b"short")
    assert "it ends before the weight 'w'" in str(refusal(model(tmp_path / "g.onnx"), tmp_path / "models"))
    (tmp_path / "w.bin").unlink()
    assert "w.bin: g.onnx keeps the weight 'w' in this file" in str(
        refusal(model(tmp_path / "g.onnx"), tmp_path / "models")
    )


@pytest.mark.parametrize("external", [False, True])
def test_weights_that_are_not_numbers_are_refused(tmp_path: Path, external: bool) -> None:
    broken = WEIGHT.copy()
    broken[1, 2] = np.nan
    proto = onnx.load(graph_file(tmp_path / "inline.onnx", weight=broken))
    onnx.save_model(
        proto, tmp_path / "g.onnx", save_as_external_data=external, location="w.bin", size_threshold=80
    )
    error = refusal(model(tmp_path / "g.onnx"), tmp_path / "models")
    assert error.reason is Reason.BAD_WEIGHTS
    assert "weight 'w' [4, 4] has 1 entries that are NaN" in str(error)


TRUE = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True)))
RATIO = helper.make_node("Constant", [], ["ratio"], value=numpy_helper.from_array(np.array(0.5, np.float32)))


def node(kind: str, *inputs: str) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), ["o"])


@pytest.mark.parametrize(
    ("extra", "shown"),
    [
        ((TRUE, RATIO, node("Dropout", "flat", "ratio", "yes")), "(Dropout) is in training mode"),
        ((node("RandomNormalLike", "flat"),), "(RandomNormalLike) draws random numbers"),
    ],
)
def test_training_mode_and_random_numbers_are_refused(tmp_path: Path, extra: Any, shown: str) -> None:
    error = refusal(model(graph_file(tmp_path / "g.onnx", extra=extra, last="o")), tmp_path / "models")
    assert error.reason is Reason.TRAINING_MODE
    assert shown in str(error)


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"inputs": {"latent": "zz"}}, "no input 'zz' for 'latent'; it has z. Add  inputs: {latent: z}"),
        ({"outputs": {}}, "no output 'x' for 'x'; it has img. Add  outputs: {x: img}"),
        ({"outputs": {"x": 0}}, "outputs of an ONNX graph have names"),
        ({"outputs": {"image": "img"}}, "no value 'image' to rename; there are x"),
    ],
)
def test_names_that_do_not_fit_are_refused_with_the_line_to_add(
    tmp_path: Path, changed: dict[str, Any], shown: str
) -> None:
    assert shown in str(refusal(model(graph_file(tmp_path / "g.onnx"), **changed), tmp_path / "models"))


def test_an_input_that_nothing_feeds_is_named(tmp_path: Path) -> None:
    proto = onnx.load(graph_file(tmp_path / "g.onnx"))
    proto.graph.input.append(helper.make_tensor_value_info("y", TensorProto.INT64, ["rows"]))
    onnx.save(proto, tmp_path / "g.onnx")
    assert "nothing feeds the graph's input 'y'" in str(
        refusal(model(tmp_path / "g.onnx"), tmp_path / "models")
    )


def test_an_old_opset_is_refused_with_the_way_to_convert(tmp_path: Path) -> None:
    file = graph_file(tmp_path / "g.onnx", shape=(-1, 4), opset=9)
    assert "version_converter" in str(refusal(model(file, layout="flat"), tmp_path / "models"))


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("net.onnx", b"no graph", "not an ONNX graph"),
        ("net.safetensors", b"", "weights without a network"),
        ("net.txt", b"", "neither ONNX (.onnx) nor TorchScript"),
        ("net.ckpt", b"", "pickle of weights"),
        ("gone.onnx", None, "there is no such file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes | None, shown: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert shown in str(refusal(model(tmp_path / name), tmp_path / "models"))


def test_pickled_weights_are_refused_with_the_way_to_convert(tmp_path: Path) -> None:
    torch.save(Generator().state_dict(), tmp_path / "net.pt")
    text = str(refusal(model(tmp_path / "net.pt"), tmp_path / "models"))
    assert "runs any code that it holds" in text
    assert "save_file(torch.load('net.pt', weights_only=True), 'net.safetensors')" in text


class Branching(nn.Module):
    """Data-dependent control flow, which scripting keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 16)
        self.dropout = nn.Dropout(0.5)

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        x = self.dropout(torch.tanh(self.layer(latent))).reshape(-1, 1, 4, 4)
        if bool(x.abs().max() > 10.0):
            x = x / x.abs().max()
        return x, latent


def scripted(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), path)
    return path


def test_torchscript_with_control_flow_is_taken_and_put_into_evaluation_mode(tmp_path: Path) -> None:
    network = Branching()
    file = scripted(network, tmp_path / "net.pt")
    package = gan(Graph(file, inputs={"latent": "latent"}, outputs={"x": 0})).export(tmp_path / "models", "g")
    found = read_package(package)
    assert found.spec.components["generator"].format == "torchscript"
    latents = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    with torch.no_grad():
        truth = network.eval()(torch.from_numpy(latents))[0].numpy()
    np.testing.assert_allclose(answer(package, latents), truth, atol=1e-6)


def test_gradient_graphs_of_files_are_refused(tmp_path: Path) -> None:
    file = graph_file(tmp_path / "g.onnx")
    error = refusal(model(file), tmp_path / "models", vjp=True)
    assert error.reason is Reason.BAD_SOURCE
    assert "pxserve-export module" in str(error)


def test_an_embedded_time_of_a_graph_asks_for_whole_steps(tmp_path: Path) -> None:
    from tests.export.assemble.nets import diffusion

    nodes = [
        helper.make_node("Gather", ["table", "t"], ["e"]),
        helper.make_node("Add", ["x", "e"], ["prediction"]),
    ]
    graph = helper.make_graph(
        nodes,
        "d",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 1, 4, 4]),
            helper.make_tensor_value_info("t", TensorProto.INT64, ["rows"]),
        ],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["rows", 1, 4, 4])],
        [numpy_helper.from_array(np.zeros((10, 1, 4, 4), np.float32), "table")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "d.onnx",
    )
    wrong: Model = diffusion(Graph(tmp_path / "d.onnx"))
    assert "Add  time_dtype: int64" in str(refusal(wrong, tmp_path / "models"))
    right = diffusion(Graph(tmp_path / "d.onnx"), time_dtype="int64")
    assert right.export(tmp_path / "models", "d").is_dir()


def test_the_image_of_the_tests_is_the_specifications(tmp_path: Path) -> None:
    package = gan(Generator(), data=IMAGE).export(tmp_path, "g", format="torchscript")
    data = read_package(package).spec.data
    assert data.shape == (1, 4, 4)
    assert data.model_dump()["transform"] == {"kind": "affine", "scale": (0.125,), "shift": (-1.0,)}
    with pytest.raises(PackageError, match="lower-case"):
        gan(Generator()).export(tmp_path, "G G")
