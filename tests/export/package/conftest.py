"""The linear package, whole and in parts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from export.package.write import write_package
from tests.export.package.linear import SPEC, linear_graph


@pytest.fixture
def spec() -> dict[str, Any]:
    """model.yaml without its files, free to change."""
    return copy.deepcopy(SPEC)


@pytest.fixture
def graph() -> bytes:
    """The generator."""
    return bytes(linear_graph().SerializeToString())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty repository."""
    return tmp_path / "models"


@pytest.fixture
def package(spec: dict[str, Any], graph: bytes, repository: Path) -> Path:
    """The folder of a good package."""
    return write_package(spec, {"generator.onnx": graph}, repository, 1)
