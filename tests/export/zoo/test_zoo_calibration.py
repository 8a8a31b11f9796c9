"""The committed calibrations belong to the packages that a build writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.package.read import read_package
from export.zoo.registry import ENTRIES

MODELS = Path(__file__).parents[3] / "models"


@pytest.mark.parametrize("name", ENTRIES)
def test_calibration_is_bound_to_the_package(name: str) -> None:
    if not (MODELS / name).is_dir():
        pytest.fail("run `make models` first")
    package = read_package(MODELS / name / "1")
    bound = json.loads(ENTRIES[name].calibration.read_text())["package_digest"]
    assert bound == package.digest, "run `make calibrations`"
