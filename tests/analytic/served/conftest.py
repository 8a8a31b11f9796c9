"""One server process with every package of this folder; asked through the client over loopback gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deploy.demo.server import serving
from export.package.read import read_package
from pxserve import Client
from serving.families.calibration import Calibration
from tests.analytic.served.packages import BASIS, write_all
from tests.analytic.served.truth import AUTOENCODER_ROWS, CHAIN, VAE, Floats, residual, surprisal

CALIBRATION_ROWS = 999
FLAGS = ("--allow-torchscript", "--threads", "1", "--max-rows", "512")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages, three of them calibrated on exact draws with closed-form statistics."""
    models = tmp_path_factory.mktemp("analytic")
    write_all(models)
    generator = np.random.default_rng(1)
    rows, centring = VAE.draw(CALIBRATION_ROWS, generator), VAE.draw(500, generator)
    _calibrate(models, "vae-exact", "typicality", -VAE.log_density(rows), -VAE.log_density(centring))
    words, others = CHAIN.draw(CALIBRATION_ROWS, generator), CHAIN.draw(500, generator)
    _calibrate(models, "chain", "typicality", surprisal(words), surprisal(others))
    far = AUTOENCODER_ROWS.draw(CALIBRATION_ROWS, generator)
    _calibrate(models, "pca-autoencoder", "reconstruction", residual(far, BASIS), None)
    return models


def _calibrate(models: Path, name: str, method: str, values: Floats, centring: Floats | None) -> None:
    digest = read_package(models / name / "1").digest
    centres = {} if centring is None else {method: centring}
    Calibration.fit(digest, {method: values}, centres).write(models / name / "calibration-1.json", digest)


@pytest.fixture(scope="session")
def client(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of the server; both end with the session."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    with serving(folder, log=log, flags=FLAGS) as running, Client(running.target, timeout_s=100.0) as it:
        yield it
