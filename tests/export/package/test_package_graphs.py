from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto

from export.package import check
from export.package.check import check_graphs, check_torchscript
from export.package.errors import PackageError, Reason
from export.package.read import Package, read_package
from export.package.write import write_package
from tests.export.package.linear import WEIGHT, linear_graph


def written(spec: dict[str, Any], repository: Path, data: bytes, name: str = "generator.onnx") -> Package:
    return read_package(write_package(spec, {name: data}, repository, 1))


def refusal(package: Package) -> PackageError:
    with pytest.raises(PackageError) as caught:
        check_graphs(package, allow_torchscript=True)
    return caught.value


def test_a_graph_that_is_what_the_package_says_passes(package: Path) -> None:
    check_graphs(read_package(package))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"output": "image"}, Reason.GRAPH_MISMATCH),
        ({"elem_type": TensorProto.DOUBLE}, Reason.GRAPH_MISMATCH),
        ({"latent": 3}, Reason.WRONG_SHAPE),
        ({"rows": 2}, Reason.WRONG_SHAPE),
    ],
)
def test_a_graph_that_is_something_else_is_refused(
    spec: dict[str, Any], repository: Path, change: dict[str, Any], reason: Reason
) -> None:
    data = linear_graph(**change).SerializeToString()
    assert refusal(written(spec, repository, data)).reason is reason


@pytest.mark.parametrize("data", [b"", b"not a graph", b"\x08\x07"])
def test_a_file_that_is_no_graph_is_refused(spec: dict[str, Any], repository: Path, data: bytes) -> None:
    assert refusal(written(spec, repository, data)).reason is Reason.UNREADABLE_GRAPH


@pytest.mark.parametrize(
    ("location", "reason"),
    [("../../secret", Reason.PATH_ESCAPES), ("weights.bin", Reason.MISSING_FILE)],
)
def test_external_weights_are_files_of_the_package(
    spec: dict[str, Any], repository: Path, location: str, reason: Reason
) -> None:
    model = linear_graph()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.append(onnx.StringStringEntryProto(key="location", value=location))
    assert refusal(written(spec, repository, model.SerializeToString())).reason is reason


class Linear(torch.nn.Module):
    weight: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(WEIGHT))

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        return (latent @ self.weight).reshape(-1, 1, 2, 2)


@pytest.fixture
def scripted(spec: dict[str, Any], repository: Path, tmp_path: Path) -> Package:
    traced = torch.jit.trace(Linear(), torch.zeros(2, 4))  # type: ignore[no-untyped-call]
    traced.save(str(tmp_path / "generator.pt"))
    spec["components"]["generator"].update(format="torchscript", file="generator.pt")
    return written(spec, repository, (tmp_path / "generator.pt").read_bytes(), "generator.pt")


def test_torchscript_is_refused_unless_allowed(scripted: Package) -> None:
    with pytest.raises(PackageError) as caught:
        check_graphs(scripted)
    assert caught.value.reason is Reason.TORCHSCRIPT_NOT_ALLOWED
    assert "--allow-torchscript" in caught.value.fix
    check_graphs(scripted, allow_torchscript=True)


def test_torchscript_of_the_bundled_zoo_is_allowed(
    scripted: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "trusted_digests", lambda: frozenset(scripted.spec.files.values()))
    check_torchscript(scripted, allow=False)


def test_torchscript_with_other_inputs_is_refused(
    spec: dict[str, Any], repository: Path, tmp_path: Path
) -> None:
    module = torch.jit.trace(lambda a, b: a + b, (torch.zeros(2), torch.zeros(2)))  # type: ignore[no-untyped-call]
    module.save(str(tmp_path / "g.pt"))
    spec["components"]["generator"].update(format="torchscript", file="g.pt")
    package = written(spec, repository, (tmp_path / "g.pt").read_bytes(), "g.pt")
    assert refusal(package).reason is Reason.GRAPH_MISMATCH


def test_a_file_that_is_no_torchscript_is_refused(spec: dict[str, Any], repository: Path) -> None:
    spec["components"]["generator"].update(format="torchscript", file="g.pt")
    assert refusal(written(spec, repository, b"not a module", "g.pt")).reason is Reason.UNREADABLE_GRAPH


def test_pickled_weights_are_refused_without_being_unpickled(
    spec: dict[str, Any], repository: Path, tmp_path: Path
) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "w.pt")
    spec["components"]["generator"].update(format="torchscript", file="g.pt")
    package = written(spec, repository, (tmp_path / "w.pt").read_bytes(), "g.pt")
    assert refusal(package).reason is Reason.UNREADABLE_GRAPH
