"""What the three families share: one entry per operation, the latent space, and refusals with reasons."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import torch

from export.package.schema import DataSpace, ModelSpec
from serving.errors import FailedPrecondition
from serving.families.calibration import Calibration
from serving.families.capability import Capability, Method, Parameter, undefined
from serving.families.latent.evaluator import Steps
from serving.families.latent.run import Run
from serving.families.request import Operation, Request
from serving.families.result import Anomalies, Result
from serving.families.rows import Program, Table

Rows = dict[str, int]
SCORE_MAP = Parameter("score_map", "bool", False)
ROUND_TRIP = Parameter("round_trip", "bool", False)


@dataclass(frozen=True)
class Answerer:
    """How a family answers an operation: what can be asked, the program, network rows by component."""

    capability: Capability
    program: Callable[[Run], Steps[Result]]
    network_rows: Callable[[Request], Rows]


class LatentFamily(ABC):
    """Base of the families whose rows are one-shot network evaluations, alone or in alternation."""

    name: str
    two_sided: frozenset[str] = frozenset()  # anomaly methods whose score is a distance from a centre

    def __init__(
        self, spec: ModelSpec, calibration: Calibration | None, latent_shape: tuple[int, ...]
    ) -> None:
        self.spec = spec
        self.calibration = calibration
        self.device = torch.device("cpu")
        axes = (
            ("latent",) if len(latent_shape) == 1 else tuple(f"latent_{i}" for i in range(len(latent_shape)))
        )
        self.latent: DataSpace | None = DataSpace(
            kind="vector", axes=axes, shape=latent_shape, dtype="float32"
        )
        self.latent_shape = latent_shape
        self.dims = prod(latent_shape)
        self._answerers = {answerer.capability.operation: answerer for answerer in self.answerers()}

    @abstractmethod
    def answerers(self) -> tuple[Answerer, ...]:
        """One entry per operation that this package can answer."""

    @abstractmethod
    def refusals(self) -> Mapping[Operation, str]:
        """Why the other operations have no meaning here, and what to use instead."""

    @abstractmethod
    def statistic(self, run: Run) -> Steps[tuple[np.ndarray, np.ndarray | None]]:
        """The raw anomaly statistic [rows] of the request's method and its map [rows, *shape] or None."""

    def tables(
        self, components: Mapping[str, object], capacity: int, device: torch.device
    ) -> dict[str, Table]:
        """No loops: every row is a call. Takes note of the device that row state lives on."""
        del components, capacity
        self.device = device
        return {}

    def capabilities(self) -> tuple[Capability, ...]:
        """One per operation, in the order of the enum."""
        refused = self.refusals()
        return tuple(
            self._answerers[operation].capability
            if operation in self._answerers
            else undefined(operation, refused[operation])
            for operation in Operation
        )

    def program(self, request: Request) -> Program:
        """The program of a request; FailedPrecondition where it has no answer."""
        run = Run(self.spec, request, self.device)
        return self._answerer(request.operation).program(run)

    def network_rows(self, request: Request) -> Rows:
        """Upper bound by component."""
        return self._answerer(request.operation).network_rows(request)

    def statistics(self, request: Request) -> Program:
        """For calibration: answers a ScoreAnomaly request with raw statistics as ``score``, no p-values."""
        return self._statistics(Run(self.spec, request, self.device))

    def anomalies(self, run: Run) -> Steps[Result]:
        """Scores and conformal p-values; NOT_CALIBRATED at once where there is nothing to compare with."""
        method = run.request.method
        if self.calibration is None:
            raise FailedPrecondition(
                f"{self.spec.name} has no calibration file; make one with `pxserve-server calibrate`",
                reason="NOT_CALIBRATED",
            )
        size = self.calibration.size(method)
        return self._scored(run, self.calibration, size)

    def _scored(self, run: Run, calibration: Calibration, size: int) -> Steps[Result]:
        statistic, score_map = yield from self.statistic(run)
        score, p_value = calibration.score(run.request.method, statistic)
        return Anomalies(score, p_value, size, calibration.digest, score_map, run.parameters)

    def _statistics(self, run: Run) -> Steps[Result]:
        statistic, score_map = yield from self.statistic(run)
        return Anomalies(statistic, score_map=score_map, parameters=run.parameters)

    def _answerer(self, operation: Operation) -> Answerer:
        if operation not in self._answerers:
            raise FailedPrecondition(self.refusals()[operation], reason="OPERATION_UNDEFINED")
        return self._answerers[operation]


def single(operation: Operation, method: Method) -> Capability:
    """An operation with one method."""
    return Capability(operation, (method,))
