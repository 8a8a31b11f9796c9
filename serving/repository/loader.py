"""What the repository needs of the engine, and what anyone may know of a loaded model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from export.package.read import Package
from export.package.schema import DataSpace, ModelSpec
from serving.engine.messages import ModelKey
from serving.families.calibration import Calibration
from serving.families.capability import Capability


class LoadedModel(Protocol):
    """A model that answers (serving.engine.model.LoadedModel)."""

    @property
    def key(self) -> ModelKey:
        """Name and version."""

    @property
    def spec(self) -> ModelSpec:
        """The content of model.yaml."""

    @property
    def digest(self) -> str:
        """SHA-256 of the package."""

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """What it answers, with measured seconds per row."""

    @property
    def latent(self) -> DataSpace | None:
        """Its latents, if any."""

    @property
    def determinism(self) -> str:
        """``batch_invariant`` or ``tolerance``, as tested at warm-up."""

    @property
    def tolerance(self) -> float | None:
        """Largest difference that the test saw."""

    @property
    def max_rows_per_request(self) -> int:
        """Rows that its tables hold for one request."""

    @property
    def memory_bytes(self) -> int:
        """Size of its files, which are in memory."""

    @property
    def cache_bytes(self) -> int:
        """Memory of the keys and values of its rows."""

    @property
    def dtype(self) -> str:
        """Floating point type of its networks."""

    @property
    def device(self) -> str:
        """Device that it runs on."""

    @property
    def runtime(self) -> str:
        """Runtime and version that run its graphs."""

    @property
    def load_seconds(self) -> float:
        """Reading and opening."""

    @property
    def warmup_seconds(self) -> float:
        """Testing and measuring."""


class Loader(Protocol):
    """The engine's part that blocks; called from worker threads."""

    def load(
        self,
        key: ModelKey,
        package: Package,
        calibration: Calibration | None,
        warming: Callable[[], object],
    ) -> LoadedModel:
        """Open and warm a package; raises PackageError or ServingError.

        ``warming`` is called, from any thread, once it is open and before its networks run.
        """

    def unload(self, key: ModelKey) -> None:
        """Free a model once its requests have ended."""
