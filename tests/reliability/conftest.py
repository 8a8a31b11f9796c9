"""What the tests of reliability share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from deploy.demo.server import Running, serving
from tests.reliability.record import Figure, Record, keep

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="session")
def models() -> Path:
    """The exported packages; made by ``make models``."""
    if not (MODELS / "digits-diffusion").is_dir():
        pytest.fail(f"{MODELS} holds no packages: run `make models` first")
    return MODELS


@pytest.fixture(scope="session")
def repository(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the nine models that may be added to."""
    folder = tmp_path_factory.mktemp("repository") / "models"
    shutil.copytree(models, folder, ignore=shutil.ignore_patterns(".exported"))
    return folder


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server, as in production, for every test that leaves it as it was."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    with serving(repository, log=log, flags=("--engine", "process", "--log-level", "warning")) as running:
        yield running


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Keeps the figures of a run for docs/reliability.md."""
    name = f"{request.node.path.relative_to(MODELS.parent)}::{request.node.name}"
    marker = "soak" if request.node.get_closest_marker("soak") else "reliability"

    def write(title: str, figures: Sequence[Figure], note: str) -> None:
        keep(title, figures, note, f"python -m pytest -m {marker} {name}")
        short = [f"{figure.name} is {figure.value:g}" for figure in figures if not figure.met]
        assert not short, f"{title}: {', '.join(short)}"

    return write
