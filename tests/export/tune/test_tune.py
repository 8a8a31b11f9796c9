"""Candidates side by side: each has an error figure or a reason, and what is kept is verified and served."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from export.cli import main
from export.package.read import list_versions, read_package
from export.package.recheck import recheck
from export.package.variants import chosen
from export.tune import forms, measure
from export.tune.candidate import NOW, Row
from export.tune.forms import REFUSED
from export.tune.table import table
from serving.families.result import Sampled
from tests.benchmarks.engines import Loaded
from tests.benchmarks.gpt2 import served
from tests.export.transformers.folders import folder

NETS = """
import torch
from torch import nn
from export.model import Diffusion, Image, LinearBetas

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.time = nn.Linear(1, 32)
        self.mix = nn.Linear(8 * 16 + 32, 16)

    def forward(self, x, t):
        h = torch.relu(self.conv(x)).flatten(1)
        return self.mix(torch.cat([h, torch.sin(self.time(t[:, None] / 10))], 1)).reshape(-1, 1, 4, 4)

def build():
    torch.manual_seed(0)
    data = Image(1, 4, 4, levels=17, data_range=(-1, 1))
    return Diffusion(Net(), LinearBetas(10), "epsilon", "step", data=data, license="MIT")
"""
QUICK = ["--rounds", "2", "--rows", "1", "3"]
NAMES = ["fused", "int8-32", "int8-128", "int4-32", "int4-128", "bfloat16"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the user's module, and the package made of it: a denoiser with a linear layer."""
    at = tmp_path_factory.mktemp("tuned")
    (at / "tuned_nets.py").write_text(NETS, encoding="utf-8")
    flags = ["--path", str(at), "--to", str(at / "models"), "--name", "mine"]
    assert main(["module", "tuned_nets:build", *flags]) == 0
    return at


@pytest.fixture
def package(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package."""
    monkeypatch.setattr(forms, "has_bfloat16", lambda: True)  # others compute it, too, only slowly
    monkeypatch.setattr(measure, "LEAST_S", 0.0)
    shutil.copytree(source / "models", tmp_path / "models")
    return tmp_path / "models" / "mine" / "1"


def tune(package: Path, *more: str) -> int:
    """The module is on the import path since it was exported."""
    return main(["tune", str(package), *QUICK, "--module", "tuned_nets:build", *more])


def test_every_candidate_has_an_error_or_a_reason(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(package) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:5] == ["candidate", "1", "row", "3", "rows"]
    for name in NAMES:
        (line,) = [line for line in lines if line.split()[0].rstrip(":") == name]
        cells = line.split()
        figure = "does not apply: " in line or float(cells[3]) > 0.0
        assert figure, line
    assert sum("x" in line for line in lines) >= 6, "most candidates apply to this network"
    assert any(line.startswith("dynamic-int8: refused: one scale for a whole batch") for line in lines)


@pytest.mark.parametrize(("name", "kind"), [("int8-32", "int8"), ("bfloat16", "bfloat16")])
def test_what_is_kept_is_verified_and_served_first(package: Path, name: str, kind: str) -> None:
    assert tune(package, "--only", name, "--keep", name) == 0
    kept = package.with_name("2")
    after, found = recheck(kept, allow_torchscript=True)
    assert set(found) == {"denoiser", "denoiser (float32)"}
    component = after.spec.components["denoiser"]
    assert [graph.kind for graph in component.graphs] == [kind, "float32"]
    before = component.variants[0].parity
    assert before is not None
    assert before.max_rel_error < 1e-5
    assert after.spec.parity.max_rel_error > before.max_rel_error
    assert "against denoiser.onnx" in after.spec.parity.inputs
    assert chosen(after, "cuda").spec.components["denoiser"].kind == "float32"
    answers = []
    for version in (kept, package):
        with served(version) as whole:
            request = Loaded(whole.engine, whole.model).sample("ddim", 5, 2)
            (result,) = whole.results([request])
        assert isinstance(result, Sampled)
        answers.append(np.asarray(result.data, np.float64))
    assert np.abs(answers[0] - answers[1]).mean() < 1.0  # levels of 17
    assert list_versions(package.parent.parent) == {"mine": [1, 2]}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("dynamic-int8", "dynamic-int8 is refused: one scale for a whole batch of activations"),
        ("fused", "fused does not apply: nothing in its graphs changes"),
        ("int3", "there is no candidate 'int3'"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    package: Path, capsys: pytest.CaptureFixture[str], name: str, shown: str
) -> None:
    assert tune(package, "--only", "fused", "--keep", name) == 1
    assert shown in capsys.readouterr().err
    assert list_versions(package.parent.parent) == {"mine": [1]}


def test_kept_in_place_of_a_version(package: Path) -> None:
    assert tune(package, "--only", "int4-32", "--keep", "int4-32", "--replace") == 0
    assert read_package(package).spec.components["denoiser"].kind == "int4"


def test_without_the_module_bfloat16_says_what_to_add(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(package), *QUICK, "--only", "bfloat16"]) == 0
    assert "add --module PACKAGE.MODULE:FUNCTION" in capsys.readouterr().out


def test_a_float32_form_that_is_another_network_does_not_apply(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = read_package(package)
    (rounded,) = [c for c in forms.candidates(opened, None) if c.name == "int4-32"]
    rows = measure.made_rows(opened, [rounded], package.parents[2], lambda what, part: None)
    form = rows[1].forms["denoiser"]
    lie = form.component.model_copy(update={"weights": "same"})
    rows[1].forms["denoiser"] = type(form)(lie, form.files, form.folder)
    measure.measure(opened, rows, [1], 1, 1, lambda what, part: None)
    assert "is not the network it was exported from" in rows[1].absent


def test_a_decoder_is_timed_by_its_steps_and_compared_in_nats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "LEAST_S", 0.0)
    assert main(["transformers", str(folder("gpt2", tmp_path)), "--to", str(tmp_path / "models")]) == 0
    capsys.readouterr()
    tuned = tmp_path / "models" / "gpt2" / "1"
    assert main(["tune", str(tuned), *QUICK, "--only", "int8-32", "bfloat16", "--keep", "int8-32"]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("int8-32")]
    assert 0.0 < float(line.split()[4]) < 0.1, "nats per symbol"
    assert "bfloat16: does not apply: ONNX Runtime has no bfloat16 attention for CPUs" in out
    with served(tuned.with_name("2")) as whole:
        assert whole.model.spec.components["decoder"].weights == "int8"
        assert whole.generate(np.array([[1, 2, 3]]), 4)


def test_a_table_without_candidates_is_one_line() -> None:
    text = table([Row(NOW, speed={1: 1.0})], [1])
    assert text.splitlines()[1].startswith(NOW)
    assert all(f"{name}: refused" in text for name in REFUSED)


def test_a_module_is_exported_in_two_precisions_at_once(source: Path, tmp_path: Path) -> None:
    flags = ["--path", str(source), "--to", str(tmp_path), "--name", "both"]
    assert (
        main(["module", "tuned_nets:build", *flags, "--precision", "bfloat16", "--precision", "float32"]) == 0
    )
    package = read_package(tmp_path / "both" / "1")
    low, exact = package.spec.components["denoiser"].graphs
    assert [(low.kind, low.format), (exact.kind, exact.format)] == [
        ("bfloat16", "torchscript"),
        ("float32", "onnx"),
    ]
    assert 1e-5 < package.spec.parity.max_rel_error < 8e-2
    assert chosen(package, "cpu", "float32").spec.components["denoiser"].kind == "float32"
