"""Every step is written twice, in torch and in ONNX: the two must be the same function."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import helper

from export.adapt.layouts import from_layout, in_layout, to_layout
from export.adapt.module import Adapted
from export.adapt.steps import (
    Cast,
    Log,
    Logit,
    LogProbability,
    NormalToUniform,
    OneHot,
    Part,
    Reorder,
    Reshape,
    Scale,
    Step,
    Transpose,
    WithZero,
    apply_all,
    write_all,
)
from export.adapt.wiring import Wire, Wiring
from export.adapt.writer import OLDEST_OPSET, NodeWriter
from export.graph.torchscript import export_torchscript

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((3, 4, 2, 5)).astype(np.float32)
SHARES = RNG.random((3, 5)).astype(np.float32)
IDS = RNG.integers(0, 5, (3, 2, 2))
CHANNELS = Scale((1.0, 2.0, 3.0, 4.0), (0.0, 1.0, 0.5, 1.0), axes=4)
CASES: list[tuple[Step, np.ndarray]] = [
    (Cast("int64"), IMAGES),
    (Cast("float16"), IMAGES),
    (Transpose((0, 2, 3, 1)), IMAGES),
    (Reshape((-1,)), IMAGES),
    (Reshape((8, 5)), IMAGES),
    (Scale((2.0,), (-1.0,)), IMAGES),
    (CHANNELS, IMAGES),
    (Log(), SHARES),
    (Logit(), SHARES),
    (LogProbability(), SHARES),
    (Part(1, 2, 4), IMAGES),
    (Reorder((2, 0, 1, 3)), IMAGES),
    (OneHot(5), IDS),
    (OneHot(5, first=True), IDS),
    (OneHot(4), IDS),
    (WithZero(), SHARES),
    (NormalToUniform(-1.0, 3.0), IMAGES),
]


@pytest.mark.parametrize("opset", [OLDEST_OPSET, 13, 20])
@pytest.mark.parametrize(("step", "value"), CASES, ids=lambda case: type(case).__name__)
def test_a_step_is_the_same_in_torch_and_in_onnx(step: Step, value: np.ndarray, opset: int) -> None:
    wanted = apply_all([step], torch.from_numpy(value)).numpy()
    found = _run([step], value, wanted, opset)
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)  # a few units of the last place


@pytest.mark.parametrize("layout", ["channels_first", "channels_last", "flat"])
def test_a_layout_and_back_is_nothing(layout: str) -> None:
    there, back = to_layout(layout, (4, 2, 5)), from_layout(layout, (4, 2, 5))
    moved = apply_all(there, torch.from_numpy(IMAGES))
    assert tuple(moved.shape[1:]) == in_layout(layout, (4, 2, 5))
    np.testing.assert_array_equal(apply_all(back, moved).numpy(), IMAGES)
    np.testing.assert_array_equal(_run([*there, *back], IMAGES, IMAGES, 13), IMAGES)


def test_probabilities_come_back_from_their_logits() -> None:
    p = torch.from_numpy(SHARES)
    np.testing.assert_allclose(torch.sigmoid(Logit().apply(p)).numpy(), SHARES, atol=1e-6)
    two = torch.softmax(WithZero().apply(Logit().apply(p)), dim=-1)[..., 1]
    np.testing.assert_allclose(two.numpy(), SHARES, atol=1e-6)


def test_probabilities_of_nought_and_one_stay_finite() -> None:
    ends = torch.tensor([[0.0, 1.0]])
    assert torch.isfinite(Logit().apply(ends)).all()
    assert torch.isfinite(LogProbability().apply(ends)).all()


def test_normal_latents_become_uniform_ones() -> None:
    u = NormalToUniform(-1.0, 3.0).apply(torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0)))
    assert -1.0 <= float(u.min()) < -0.99
    assert 2.99 < float(u.max()) <= 3.0
    tenths = torch.histc(u, 10, -1.0, 3.0) / len(u)
    # 4.9 standard errors of a share of 0.1 among 100,000: one false alarm in 100,000 runs
    assert float((tenths - 0.1).abs().max()) < 4.9 * (0.09 / 100_000) ** 0.5


def _run(steps: list[Step], value: np.ndarray, wanted: np.ndarray, opset: int) -> np.ndarray:
    writer = NodeWriter("test")
    writer.node("Identity", [write_all(steps, writer, "v")], "y")
    kinds = [helper.np_dtype_to_tensor_dtype(array.dtype) for array in (value, wanted)]
    graph = helper.make_graph(
        writer.nodes,
        "steps",
        [helper.make_tensor_value_info("v", kinds[0], ["rows", *value.shape[1:]])],
        [helper.make_tensor_value_info("y", kinds[1], ["rows", *wanted.shape[1:]])],
        initializer=writer.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["y"], {"v": value})[0]
    return found


@pytest.mark.parametrize(("step", "value"), CASES, ids=lambda case: type(case).__name__)
def test_a_step_names_no_device_in_a_trace(step: Step, value: np.ndarray) -> None:
    wiring = Wiring.placed([Wire("x", "float32", (), (step,))], [Wire("x", "float32", ())])
    assert export_torchscript(Adapted(torch.nn.Identity(), wiring), {"x": torch.from_numpy(value)})
