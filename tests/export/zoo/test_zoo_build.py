from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from export.package.check import check_graphs
from export.package.read import read_package
from export.zoo import build as building
from export.zoo.build import build, build_all
from export.zoo.registry import ENTRIES


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("models")
    build_all(to, None, lambda message, done: None)
    return to


@pytest.mark.parametrize("name", ENTRIES)
def test_package_reads_back_and_its_graphs_fit_it(models: Path, name: str) -> None:
    package = read_package(models / name / "1")
    check_graphs(package)
    assert package.spec.family == ENTRIES[name].family
    assert set(package.spec.components) == set(ENTRIES[name].parts)


@pytest.mark.parametrize("name", ENTRIES)
def test_graphs_are_the_trained_network(models: Path, name: str) -> None:
    parity = read_package(models / name / "1").spec.parity
    assert parity.max_rel_error < 1e-5
    has_torchscript = any(part.kind == "torchscript" for part in ENTRIES[name].parts.values())
    assert parity.batch_invariant or has_torchscript


def test_progress_rises_to_one(tmp_path: Path) -> None:
    seen: list[float] = []
    build("digits-autoencoder", tmp_path, lambda message, done: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_calibration_lands_beside_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Calibrated(type(ENTRIES["digits-autoencoder"])):  # type: ignore[misc]
        calibration = tmp_path / "calibration.json"

    Calibrated.calibration.write_text(json.dumps({"rows": 1}), encoding="utf-8")
    entry = ENTRIES["digits-autoencoder"]
    fields = {name: getattr(entry, name) for name in entry.__dataclass_fields__}
    monkeypatch.setattr(building, "ENTRIES", {entry.name: Calibrated(**fields)})
    folder = build(entry.name, tmp_path / "models", lambda message, done: None)
    assert json.loads((folder.parent / "calibration-1.json").read_text(encoding="utf-8")) == {"rows": 1}
    assert replace(entry) == entry
