from __future__ import annotations

from pathlib import Path

import pytest

from export.cli import main
from export.package.errors import PackageError
from export.package.read import Package, read_package
from export.package.recheck import recheck
from export.package.variants import chosen
from tests.benchmarks.gpt2 import served
from tests.export.transformers.folders import folder


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """One model as three graphs: float32, bfloat16 for CUDA, and 8-bit weights."""
    at = tmp_path_factory.mktemp("variants")
    flags = ["--precision", "float32", "--precision", "bfloat16", "--weights", "int8"]
    assert main(["transformers", str(folder("gpt2", at)), "--to", str(at / "models"), *flags]) == 0
    return read_package(at / "models" / "gpt2" / "1")


def kind(package: Package) -> str:
    return package.spec.components["decoder"].kind


def test_the_first_graph_that_the_device_runs_is_the_default(package: Package) -> None:
    assert kind(chosen(package, "cpu")) == "float32"
    assert kind(chosen(package, "cuda")) == "bfloat16"
    assert not chosen(package, "cpu").spec.components["decoder"].variants


def test_a_graph_may_be_asked_for_and_others_stay_where_it_is_not_for_this_device(package: Package) -> None:
    assert kind(chosen(package, "cpu", "int8")) == "int8"
    assert kind(chosen(package, "cpu", "bfloat16")) == "float32"
    assert chosen(package, "cpu", "int8").digest == package.digest


def test_no_graph_for_a_device_is_refused(package: Package) -> None:
    only = chosen(package, "cuda")
    with pytest.raises(PackageError, match="for cuda, not for cpu"):
        chosen(only, "cpu")


def test_every_graph_is_checked_and_the_chosen_one_is_served(package: Package) -> None:
    _, found = recheck(package.folder)
    assert set(found) == {"decoder", "decoder (int8)"}
    with served(package.folder) as whole:
        assert whole.model.dtype == "float32"


def test_a_variant_whose_file_is_not_listed_is_refused(package: Package, tmp_path: Path) -> None:
    text = (package.folder / "model.yaml").read_text()
    broken = text.replace("file: decoder_int8.onnx", "file: other.onnx")
    assert broken != text
    target = tmp_path / "gpt2" / "1"
    target.mkdir(parents=True)
    (target / "model.yaml").write_text(broken)
    with pytest.raises(PackageError, match=r"other\.onnx"):
        read_package(target)
