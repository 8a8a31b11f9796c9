"""Anomaly: how untypical a row's denoising errors are, against the package's calibration rows."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from serving.errors import FailedPrecondition
from serving.families.calibration import Calibration
from serving.families.diffusion.bound import bound
from serving.families.diffusion.denoiser import Denoiser
from serving.families.diffusion.reconstruction import reconstruction_loss
from serving.families.request import Request
from serving.families.result import Anomalies
from serving.families.rows import Program, Tensors, Yield

TYPICALITY = "typicality"
RECONSTRUCTION = "denoising_error"
TWO_SIDED = frozenset({TYPICALITY})
STEPS, DRAWS = 50, 1  # of the typicality's bound

Found = tuple[NDArray[np.float64], NDArray[np.float32] | None]


def anomalies(denoiser: Denoiser, calibration: Calibration | None, request: Request) -> Program:
    """Scores and conformal p-values; NOT_CALIBRATED at once where there is nothing to compare with."""
    if calibration is None:
        raise FailedPrecondition(
            f"{denoiser.spec.name} has no calibration file; make one with `pxserve-server calibrate`",
            reason="NOT_CALIBRATED",
        )
    return _scored(denoiser, calibration, calibration.size(request.method), request)


def _scored(denoiser: Denoiser, calibration: Calibration, size: int, request: Request) -> Program:
    statistic, score_map = yield from _statistic(denoiser, request)
    score, p_value = calibration.score(request.method, statistic)
    return Anomalies(score, p_value, size, calibration.digest, score_map, dict(request.parameters))


def statistics(denoiser: Denoiser, request: Request) -> Program:
    """For calibration: raw statistics as ``score``."""
    statistic, score_map = yield from _statistic(denoiser, request)
    return Anomalies(statistic, score_map=score_map, parameters=dict(request.parameters))


def _statistic(denoiser: Denoiser, request: Request) -> Generator[Yield, Tensors, Found]:
    """Nats per dimension below the bound (Nalisnick et al. 2019 take its distance from the typical), or
    the mean denoising error; the map is the same by element.
    """
    if request.method == TYPICALITY:
        found = yield from bound(denoiser, request, min(STEPS, denoiser.process.count), DRAWS)
        by_element = -found.map
    else:
        by_element = yield from reconstruction_loss(denoiser, request)
    wanted = bool(request.parameters.get("score_map", False))
    score_map = by_element.reshape(request.rows, *denoiser.shape).astype(np.float32) if wanted else None
    return by_element.mean(axis=1), score_map
