"""Anomaly scores against a calibration set: conformal p-values with a guarantee.

Vovk, Gammerman and Shafer (2005): if the calibration rows and a new row are exchangeable, then
p = (1 + #{calibration score >= score}) / (n + 1) satisfies Pr[p <= a] <= a for every a. The score may
depend on anything that was fixed without the calibration rows, so the centre of a two-sided score is
estimated on a split of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.errors import FailedPrecondition

FORMAT_VERSION = 1
ROUNDING = 1e-5  # relative difference of a statistic between machines, batches and graph formats
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """Statistics of one anomaly method on the calibration rows, ascending; ``centre`` None: one-sided."""

    statistics: Floats
    centre: float | None = None

    def scores(self, statistic: Floats) -> Floats:
        """Higher = stranger: |statistic - centre| where two-sided, else the statistic."""
        values = np.asarray(statistic, np.float64)
        return values if self.centre is None else np.abs(values - self.centre)


@dataclass(frozen=True)
class Calibration:
    """What one package scored on its calibration rows; ``digest`` is the SHA-256 of the file's bytes."""

    package_digest: str
    references: Mapping[str, Reference]
    digest: str = ""

    @classmethod
    def fit(
        cls,
        package_digest: str,
        statistics: Mapping[str, Sequence[float] | Floats],
        centring: Mapping[str, Sequence[float] | Floats],
    ) -> Calibration:
        """From raw statistics by method; ``centring``: of a disjoint split, two-sided methods only."""
        references = {}
        for method, values in statistics.items():
            ordered = np.sort(np.asarray(values, np.float64))
            if not len(ordered) or not np.isfinite(ordered).all():
                raise ValueError(f"calibration of {method}: needs at least one row, and finite statistics")
            split = centring.get(method)
            references[method] = Reference(ordered, None if split is None else float(np.mean(split)))
        return cls(package_digest, references).sealed()

    @classmethod
    def read(cls, path: Path, package_digest: str) -> Calibration:
        """Read a file; FailedPrecondition where it is malformed or belongs to another package."""
        try:
            content = path.read_bytes()
            found = json.loads(content)
            if found["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format_version {found['format_version']!r}")
            calibration = cls(str(found["package_digest"]), _references(found["methods"]), _sha256(content))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FailedPrecondition(
                f"{path.name}: no calibration file: {error}", reason="NOT_CALIBRATED"
            ) from error
        if calibration.package_digest != package_digest:
            message = (
                f"{path.name}: made for package {calibration.package_digest}, this one is {package_digest}"
            )
            raise FailedPrecondition(message + "; calibrate it again", reason="NOT_CALIBRATED")
        return calibration

    def write(self, path: Path, package_digest: str) -> Calibration:
        """Write the file in one piece, bound to a package; returns what ``read`` will return."""
        bound = Calibration(package_digest, self.references).sealed()
        temporary = path.with_name(path.name + f".{os.getpid()}.part")
        temporary.write_bytes(bound.content())
        temporary.replace(path)
        return bound

    def content(self) -> bytes:
        """The bytes of the file: JSON, floats in the shortest form that reads back exactly."""
        methods = {
            name: {"centre": reference.centre, "statistics": reference.statistics.tolist()}
            for name, reference in sorted(self.references.items())
        }
        document = {
            "format_version": FORMAT_VERSION,
            "package_digest": self.package_digest,
            "methods": methods,
        }
        return (json.dumps(document, allow_nan=False) + "\n").encode()

    def sealed(self) -> Calibration:
        """The same, with the digest of its own content."""
        return Calibration(self.package_digest, self.references, _sha256(self.content()))

    def reference(self, method: str) -> Reference:
        """The statistics of a method; FailedPrecondition NOT_CALIBRATED where it has none."""
        if method not in self.references:
            known = ", ".join(sorted(self.references)) or "none"
            raise FailedPrecondition(
                f"method {method!r} is not calibrated for this package (calibrated: {known})",
                reason="NOT_CALIBRATED",
            )
        return self.references[method]

    def size(self, method: str) -> int:
        """Calibration rows of a method."""
        return len(self.reference(method).statistics)

    def score(self, method: str, statistic: Floats) -> tuple[Floats, Floats]:
        """Score and p-value of each statistic [rows]; nan (no finite statistic) is as strange as can be.

        Discrete rows tie, and a tie that rounding breaks would make p-values too small: what is equal
        up to rounding counts as equal, which can only make them larger.
        """
        reference = self.reference(method)
        slack = ROUNDING * np.where(np.isfinite(statistic), np.abs(statistic), 0.0)
        scores = reference.scores(np.where(np.isnan(statistic), np.inf, statistic))
        calibrated = np.sort(reference.scores(reference.statistics))
        at_least = len(calibrated) - np.searchsorted(calibrated, scores - slack, side="left")
        return scores, np.asarray((1.0 + at_least) / (len(calibrated) + 1.0), np.float64)


def _references(methods: Mapping[str, Mapping[str, object]]) -> dict[str, Reference]:
    found = {}
    for name, entry in methods.items():
        statistics = np.asarray(entry["statistics"], np.float64)
        centre = entry["centre"]
        if statistics.ndim != 1 or not len(statistics) or not np.isfinite(statistics).all():
            raise ValueError(f"statistics of {name} must be a list of finite numbers")
        if centre is not None and not isinstance(centre, float | int):
            raise ValueError(f"centre of {name} must be a number or null")
        found[name] = Reference(np.sort(statistics), None if centre is None else float(centre))
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
