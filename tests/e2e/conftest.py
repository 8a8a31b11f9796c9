"""One server with the nine reference models for all end-to-end tests, over loopback gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.server import Running, serving
from pxserve import Client

MODELS = Path(__file__).parents[2] / "models"
IMAGE_MODELS = (
    "digits-autoregressive",
    "digits-autoencoder",
    "digits-diffusion",
    "digits-flow",
    "digits-gan",
    "digits-pixelcnn",
    "digits-score",
    "digits-vae",
)
TEXT_MODELS = ("text-autoregressive",)
SAMPLING_MODELS = tuple(name for name in (*IMAGE_MODELS, *TEXT_MODELS) if name != "digits-autoencoder")


@pytest.fixture(scope="session")
def models() -> Path:
    """The exported packages; made by ``make models``."""
    if not (MODELS / "digits-diffusion").is_dir():
        pytest.fail(f"{MODELS} holds no packages: run `make models` first")
    return MODELS


@pytest.fixture(scope="session")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A real server process; ended when the session ends."""
    with serving(models, log=tmp_path_factory.mktemp("server") / "server.log") as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Running) -> Iterator[Client]:
    """A client of it."""
    with Client(server.target, timeout_s=110.0) as it:
        yield it
