"""A server on loopback with a fake engine, and a channel to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.api.fake_models import models_in
from tests.serving.api.served import Served


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for a module of tests that leave it as it was."""
    with Served(models_in(tmp_path_factory.mktemp("models"))) as served:
        yield served


@pytest.fixture
def served(shared: Served) -> Served:
    """The shared server with a fresh engine behind it."""
    shared.engine.reset()
    return shared


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Served]:
    """A server that a test may end, or whose models it may change."""
    with Served(models_in(tmp_path / "models")) as served:
        yield served
