"""``pxserve-server evaluate``: what it prints, its exit status, and the checks that every family shares."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from export.package.read import read_package
from export.package.write import write_package
from export.zoo.data import digits
from serving.cli import main
from serving.commands.dataset import Dataset
from serving.commands.meaning import common
from serving.commands.meaning.check import Alternative, Check, below
from serving.commands.meaning.subject import Subject
from tests.export.package.linear import SPEC, linear_graph
from tests.serving.commands.mistakes import ZERO_ONE, Mistake, autoencoder, gan, vae

ROWS = Dataset(np.zeros((8, 1, 2, 2), np.uint8), None, {})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages of the zoo's networks: one right, one misread, one with noise on its weights."""
    folder = tmp_path_factory.mktemp("models")
    np.savez(folder / "rows.npz", data=digits().test.images[:16], label=digits().test.labels[:16])
    for case in (Mistake("right", autoencoder, ""), Mistake("vae", vae, "")):
        case.build(folder).export(folder, case.name, license="MIT")
    gan(folder, data=ZERO_ONE).export(folder, "misread", license="MIT")
    noisy = onnx.load(folder / "encoder.onnx")
    for tensor in noisy.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            weight = numpy_helper.to_array(tensor)
            noise = np.random.default_rng(0).standard_normal(weight.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(weight + 0.3 * weight.std() * noise, tensor.name))
    right = autoencoder(folder)
    onnx.save(noisy, folder / "encoder.onnx")
    right.export(folder, "last", license="MIT")
    return folder


def arguments(models: Path, name: str, *more: str) -> list[str]:
    return [
        "evaluate",
        name,
        "--models",
        str(models),
        "--data",
        str(models / "rows.npz"),
        "--threads",
        "1",
        *more,
    ]


def test_what_means_what_it_says_passes_and_is_measured(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(models, "right")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok   reconstruction error") for line in lines)
    assert any(line.startswith("reconstruct  reconstruction") for line in lines)


def test_what_is_misread_fails_with_status_one_naming_the_mistake(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(models, "misread", "--only", "meaning", "--json")) == 1
    checks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    failed = [check for check in checks if not check["passed"]]
    assert any("pixels in [-1, 1] taken for [0, 1]" in check["mistake"] for check in failed)
    assert {"check", "value", "bound", "passed", "mistake"} <= checks[0].keys()
    assert [c["check"] for c in checks if c["check"].startswith("samples")] == [
        "samples, distance",
        "samples, range",
    ]


def test_figures_alone_check_nothing(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(models, "misread", "--only", "figures", "--rows", "1", "--json")) == 0
    assert all("check" not in json.loads(line) for line in capsys.readouterr().out.splitlines())


def test_two_exports_of_one_training_are_compared(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(models, "right", "--only", "meaning", "--against", "last")) == 0
    assert main(arguments(models, "last", "--only", "meaning", "--against", "right/1")) == 1
    assert (
        "right/1 fits better: are these the weights without their average (EMA)?" in capsys.readouterr().out
    )
    assert main(arguments(models, "right", "--only", "meaning", "--against", "vae")) == 1
    assert "it is of the family vae, not autoencoder" in capsys.readouterr().err


def test_too_few_rows_are_refused(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "few.npz", data=digits().test.images[:2])
    few = ["evaluate", "right", "--models", str(models), "--data", str(tmp_path / "few.npz")]
    assert main(few) == 1
    assert "2 rows; checks of the meaning need at least 8" in capsys.readouterr().err


def _repeats(tmp_path: Path, *nodes: onnx.NodeProto) -> Check:
    """The verdict on a linear generator whose output goes through ``nodes``, from ``y`` to ``x``."""
    graph = linear_graph(output="y")
    graph.graph.node.extend(nodes)
    graph.graph.output[0].name = "x"
    package = write_package(SPEC, {"generator.onnx": graph.SerializeToString()}, tmp_path, 1)
    return next(common.repeats(Subject(read_package(package), ROWS, threads=1)))


def test_random_networks_are_named(tmp_path: Path) -> None:
    noise = helper.make_node("RandomNormalLike", ["y"], ["n"])
    found = _repeats(tmp_path, noise, helper.make_node("Add", ["y", "n"], ["x"]))
    assert not found.passed
    assert "training mode: dropout, or noise" in found.mistake


def test_rows_that_depend_on_their_neighbours_are_named(tmp_path: Path) -> None:
    mean = helper.make_node("ReduceMean", ["y", "axis"], ["m"])
    axis = helper.make_node("Constant", [], ["axis"], value=numpy_helper.from_array(np.array([0])))
    found = _repeats(tmp_path, axis, mean, helper.make_node("Sub", ["y", "m"], ["x"]))
    assert not found.passed
    assert "batch normalisation" in found.mistake


def test_networks_that_repeat_themselves_pass(tmp_path: Path) -> None:
    assert _repeats(tmp_path, helper.make_node("Identity", ["y"], ["x"])).passed


def test_a_loss_below_its_bound_fails_where_another_reading_is_far_better() -> None:
    assert below("loss", 0.5, 1.0, [Alternative("other", 0.49)]).passed
    named = below("loss", 0.5, 1.0, [Alternative("other", 0.3), Alternative("worse", 0.4)])
    assert not named.passed
    assert named.mistake == "other: 0.3 instead of 0.5"
    unexplained = below("loss", 2.0, 1.0, [Alternative("other", 1.9)])
    assert "no single other reading explains it" in unexplained.mistake
