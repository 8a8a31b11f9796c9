"""A pipeline of diffusers beside a package made from it: the same start, and the states on the way."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.cli import main
from export.package.read import read_package
from export.package.schema import Affine
from export.package.write import write_package
from serving.families.diffusion.table import initial_noise

SEED, ROWS, STEPS = 11, 3, 20
TOLERANCE = 1e-4  # of the largest entry, at least 1
# Random networks that predict noise are chaotic where there is hardly any signal: theirs predict velocities.
PREDICTION: dict[str, Any] = {"prediction_type": "v_prediction"}

Array = NDArray[Any]


def export(command: str, at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a ``pxserve-export`` command line in the folder ``at``, in this process."""
    monkeypatch.chdir(at)
    assert main(shlex.split(command)[1:]) == 0


def real_valued(package: Path, name: str) -> None:
    """The same package once more under another name, with real numbers in [0, 1] for levels."""
    found = read_package(package)
    files: dict[str, Path | bytes] = {file: package / file for file in found.spec.files}
    data = found.spec.data.model_copy(
        update={"dtype": "float32", "levels": 0, "transform": Affine(scale=(2.0,), shift=(-1.0,))}
    )
    write_package(found.spec.model_copy(update={"data": data, "name": name}), files, package.parents[1], 1)


def model_units(found: Array) -> Array:
    """Real numbers in [0, 1] in [-1, 1], as networks see them."""
    return 2.0 * np.asarray(found, np.float64) - 1.0


def started(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> list[Array]:
    """A pipeline starts from the server's noise; the states that its scheduler arrives at, as they come."""
    states: list[Array] = []
    step, module = pipeline.scheduler.step, sys.modules[type(pipeline).__module__]

    def stepped(*arguments: Any, **keywords: Any) -> Any:
        found = step(*arguments, **keywords)
        state = found[0] if isinstance(found, tuple) else found.prev_sample
        states.append(state.numpy()[:ROWS])
        return found

    def noise(shape: tuple[int, ...], **_: Any) -> torch.Tensor:
        rows = np.arange(ROWS)
        return initial_noise(SEED, rows, None, int(np.prod(shape[1:]))).reshape(ROWS, *shape[1:])

    monkeypatch.setattr(pipeline.scheduler, "step", stepped)
    monkeypatch.setattr(module, "randn_tensor", noise)
    pipeline.set_progress_bar_config(disable=True)
    return states


def agree(found: Array, wanted: Array) -> None:
    """Within ``TOLERANCE``."""
    assert np.isfinite(wanted).all()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * max(1.0, np.abs(wanted).max()))
