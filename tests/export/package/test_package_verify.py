from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from export.package.errors import PackageError, Reason
from export.package.read import read_package
from export.package.recheck import recheck
from export.package.run_graph import open_graph
from export.package.schema import Diffusion
from export.package.seeded import seeded_inputs, times
from export.package.verify import Arrays, verify
from export.package.write import write_package
from tests.export.package.linear import WEIGHT, linear_graph

INPUTS: Arrays = {"latent": np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)}


def source(inputs: Arrays) -> dict[str, npt.NDArray[np.float32]]:
    return {"x": (inputs["latent"].astype(np.float32) @ WEIGHT).reshape(-1, 1, 2, 2)}


def refusal(graph: Any, of: Any = source, **options: Any) -> PackageError:
    with pytest.raises(PackageError) as caught:
        verify(graph, of, INPUTS, **options)
    assert caught.value.reason is Reason.PARITY
    return caught.value


def changed(by: float) -> Any:
    return lambda inputs: {"x": source(inputs)["x"] + np.float32(by)}


def test_the_exported_graph_is_its_source(package: Path) -> None:
    found = read_package(package)
    parity = verify(
        open_graph(found.component_path("generator"), found.spec.components["generator"]), source, INPUTS
    )
    assert parity.max_abs_error < 1e-5
    assert parity.max_rel_error < 1e-5
    assert "1, 2, 3, 8" in parity.inputs


def test_the_largest_error_is_reported_and_refused_above_tolerance() -> None:
    parity = verify(changed(1e-3), source, INPUTS, tolerance=1e-2)
    assert parity.max_abs_error == pytest.approx(1e-3, rel=1e-3)
    assert parity.max_rel_error == pytest.approx(1e-3 / np.abs(source(INPUTS)["x"]).max(), rel=1e-3)
    assert "1e-05" in refusal(changed(1e-3), tolerance=1e-5).problem


def test_rows_that_depend_on_their_neighbours_are_refused() -> None:
    def normalised(inputs: Arrays) -> Arrays:
        x = source(inputs)["x"]
        return {"x": x - x.mean(axis=0)}

    assert "neighbours" in refusal(normalised, normalised).problem


def test_rows_that_move_in_the_last_bits_are_recorded() -> None:
    def rounded(inputs: Arrays) -> Arrays:
        return {"x": source(inputs)["x"] * np.float32(1.0 + 1e-6 * (len(inputs["latent"]) > 4))}

    assert verify(rounded, source, INPUTS).batch_invariant is False


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_on_either_side(value: float) -> None:
    assert "graph" in refusal(changed(value)).problem
    assert "source" in refusal(source, changed(value)).problem


def test_other_names_shapes_and_too_few_rows_are_refused() -> None:
    refusal(lambda inputs: {"y": source(inputs)["x"]})
    refusal(lambda inputs: {"x": source(inputs)["x"][:1]})
    refusal(source, rows=(1, 9))


def test_recheck_runs_every_graph(package: Path) -> None:
    found, parity = recheck(package)
    assert found.version == 1
    assert set(parity) == {"generator"}


def test_a_graph_with_nan_weights_is_refused_by_recheck(spec: dict[str, Any], repository: Path) -> None:
    model = linear_graph()
    model.graph.initializer[0].raw_data = np.full((4, 4), np.nan, np.float32).tobytes()
    folder = write_package(spec, {"generator.onnx": model.SerializeToString()}, repository, 1)
    with pytest.raises(PackageError) as caught:
        recheck(folder)
    assert caught.value.reason is Reason.PARITY


def test_a_graph_that_the_runtime_refuses_is_refused(spec: dict[str, Any], repository: Path) -> None:
    model = linear_graph()
    model.graph.node[0].op_type = "NoSuchOperator"
    folder = write_package(spec, {"generator.onnx": model.SerializeToString()}, repository, 1)
    with pytest.raises(PackageError) as caught:
        recheck(folder)
    assert caught.value.reason is Reason.UNREADABLE_GRAPH


def test_seeded_inputs_are_the_same_every_time_and_rows_do_not_move(package: Path) -> None:
    spec = read_package(package).spec
    few, many = seeded_inputs(spec, "generator", 2), seeded_inputs(spec, "generator", 5)
    assert np.array_equal(few["latent"], many["latent"][:2])
    assert not np.array_equal(many["latent"], seeded_inputs(spec, "generator", 5, seed=1)["latent"])


@pytest.mark.parametrize(
    ("unit", "low", "high"),
    [("step", 0, 3), ("fraction", 0, 1), ("sigma", 0.1, 10), ("log_sigma", -2.31, 2.31)],
)
def test_times_lie_in_the_schedule(unit: Any, low: float, high: float) -> None:
    schedule = {"kind": "ve", "sigmas": [0.1, 0.5, 1.0, 10.0]}
    section = Diffusion.model_validate({"schedule": schedule, "prediction": "score", "time_input": unit})
    found = times(section, np.linspace(0.0, 0.999, 50))
    assert found.min() >= low
    assert found.max() <= high
