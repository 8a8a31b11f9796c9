"""Noise schedules by their usual names, and as numbers; what a package keeps is the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from export.model.record import specification

DECIMALS = 12  # kept of numbers computed here, so that every processor writes the same package


def _numbers(values: Any) -> Any:
    """Arrays and tensors as plain tuples."""
    return tuple(np.asarray(values, np.float64).reshape(-1).tolist())


Numbers = Annotated[tuple[float, ...], BeforeValidator(_numbers)]
Steps = Annotated[int, Field(ge=2)]


@specification
class LinearBetas:
    """Ho et al. 2020: betas from ``start`` to ``end``."""

    steps: Steps = 1000
    start: float = 1e-4
    end: float = 0.02
    kind: Literal["linear_betas"] = "linear_betas"

    def section(self) -> dict[str, Any]:
        """``schedule`` of ``model.yaml``."""
        return _vp(np.linspace(self.start, self.end, self.steps))


@specification
class ScaledLinearBetas:
    """Rombach et al. 2022: square roots of the betas from sqrt(``start``) to sqrt(``end``)."""

    steps: Steps = 1000
    start: float = 0.00085
    end: float = 0.012
    kind: Literal["scaled_linear_betas"] = "scaled_linear_betas"

    def section(self) -> dict[str, Any]:
        """``schedule`` of ``model.yaml``."""
        return _vp(np.linspace(self.start**0.5, self.end**0.5, self.steps) ** 2)


@specification
class CosineBetas:
    """Nichol and Dhariwal 2021, eq. 17: abar = cos^2, betas at most ``largest``."""

    steps: Steps = 1000
    offset: float = 0.008
    largest: float = 0.999
    kind: Literal["cosine_betas"] = "cosine_betas"

    def section(self) -> dict[str, Any]:
        """``schedule`` of ``model.yaml``."""
        t = np.arange(self.steps + 1) / self.steps
        kept = np.cos((t + self.offset) / (1 + self.offset) * np.pi / 2) ** 2
        return _vp(np.minimum(1.0 - kept[1:] / kept[:-1], self.largest))


@specification
class Betas:
    """The betas of every training step, as the training used them (an array, a tensor, a list)."""

    values: Numbers
    kind: Literal["betas"] = "betas"

    def section(self) -> dict[str, Any]:
        """``schedule`` of ``model.yaml``."""
        return {"kind": "vp", "betas": list(self.values)}


@specification
class AlphasCumprod:
    """abar_t = prod (1 - beta) of every training step, descending."""

    values: Numbers
    kind: Literal["alphas_cumprod"] = "alphas_cumprod"

    def section(self) -> dict[str, Any]:
        """``schedule`` of ``model.yaml``."""
        kept = np.asarray(self.values)
        return {"kind": "vp", "betas": (1.0 - kept / np.concatenate([[1.0], kept[:-1]])).tolist()}


@specification
class GeometricSigmas:
    """Song and Ermon 2019, variance exploding: noise scales from ``smallest`` to ``largest``, model units."""

    smallest: Annotated[float, Field(gt=0)]
    largest: float
    steps: Steps = 1000
    kind: Literal["geometric_sigmas"] = "geometric_sigmas"

    def section(self) -> dict[str, Any]:
        """``schedule`` of ``model.yaml``."""
        return _ve(np.geomspace(self.smallest, self.largest, self.steps))


@specification
class Sigmas:
    """The noise scales of every training step, variance exploding, ascending, in model units."""

    values: Numbers
    kind: Literal["sigmas"] = "sigmas"

    def section(self) -> dict[str, Any]:
        """``schedule`` of ``model.yaml``."""
        return {"kind": "ve", "sigmas": list(self.values)}


@specification
class StraightPath:
    """Flow matching (Lipman et al. 2023; Liu et al. 2023): x_s = (1 - s) x_0 + s e.

    ``steps`` multiplies s where the network is told a step.
    """

    steps: Steps = 1000
    kind: Literal["straight_path"] = "straight_path"

    def section(self) -> dict[str, Any]:
        """``schedule`` of ``model.yaml``."""
        return {"kind": "flow", "training_steps": self.steps}


def _vp(betas: np.ndarray) -> dict[str, Any]:
    return {"kind": "vp", "betas": betas.round(DECIMALS).tolist()}


def _ve(sigmas: Sequence[float] | np.ndarray) -> dict[str, Any]:
    return {"kind": "ve", "sigmas": np.asarray(sigmas).round(DECIMALS).tolist()}


Schedule = Annotated[
    LinearBetas
    | ScaledLinearBetas
    | CosineBetas
    | Betas
    | AlphasCumprod
    | GeometricSigmas
    | Sigmas
    | StraightPath,
    Field(discriminator="kind"),
]
