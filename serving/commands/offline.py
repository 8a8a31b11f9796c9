"""An engine of our own around one package, for commands that compute without serving."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from export.package.read import Package, read_package
from export.package.schema import ModelSpec
from export.package.variants import chosen
from serving.commands.dataset import Dataset
from serving.engine.engine import Engine
from serving.engine.messages import ModelKey, Options
from serving.engine.model import LoadedModel
from serving.engine.ticket import Ticket
from serving.errors import NotFound
from serving.families.absent import absent
from serving.families.capability import Capability, Method
from serving.families.registry import family_of
from serving.families.request import Array, Operation, Request, Value
from serving.families.rows import Family, Program


@dataclass(frozen=True)
class Offline:
    """A loaded package and the engine that runs it."""

    engine: Engine
    package: Package
    model: LoadedModel

    def capability(self, operation: Operation) -> Capability:
        """What the model says of an operation."""
        return next(c for c in self.model.capabilities if c.operation is operation)

    def statistics(self, request: Request) -> Ticket:
        """Run the raw anomaly statistics of a ScoreAnomaly request."""
        return self.submit(request, self._family.statistics(request))

    def network_rows(self, request: Request) -> dict[str, int]:
        """Network rows by component that the request takes, at most."""
        return self._family.network_rows(request)

    def two_sided(self, method: str) -> bool:
        """Whether an anomaly method's score is a distance from a centre."""
        return method in self._family.two_sided

    @property
    def _family(self) -> Family:
        return family_of(self.package.spec)

    def submit(self, request: Request, program: Program | None = None) -> Ticket:
        """Run a request, or another program on its behalf."""
        return self.engine.submit(self.model.key, request, Options(), program)


@contextlib.contextmanager
def offline(models: Path, name: str, version: int | None, threads: int = 0) -> Iterator[Offline]:
    """Load ``models/name/version`` (default: the highest) and run its engine while the block lasts."""
    package = chosen(read_package(models / name / str(version or latest(models / name))), "cpu")
    engine = Engine(threads=threads, queue_rows=1 << 20)
    engine.start()
    try:
        key = ModelKey(name, package.version)
        yield Offline(engine, package, engine.load(key, package))
    finally:
        engine.stop()


def latest(folder: Path) -> int:
    """The highest version of a model's folder; NotFound where there is none."""
    versions = [int(path.name) for path in folder.glob("*") if path.is_dir() and path.name.isdigit()]
    if not versions:
        raise NotFound(f"{folder} holds no versions (folders named 1, 2, ...)")
    return max(versions)


def calibration_path(package: Package) -> Path:
    """Where a package's calibration lies: beside its version folder."""
    return package.folder.parent / f"calibration-{package.version}.json"


def request_of(
    spec: ModelSpec, operation: Operation, method: Method, rows: Dataset, first_row: int, **changed: Value
) -> Request:
    """A request at the method's defaults; absent conditions get their null value."""
    defaults = {p.name: p.default for p in method.parameters if p.default is not None}
    return Request(
        operation=operation,
        method=method.name,
        parameters={**defaults, **changed},
        seed=0,
        first_row=first_row,
        rows=len(rows),
        data=rows.data,
        lengths=rows.lengths,
        conditions=_conditions(spec, rows),
        given_conditions=frozenset(rows.conditions),
    )


def _conditions(spec: ModelSpec, rows: Dataset) -> dict[str, Array]:
    null = {c.name: absent(c, len(rows)) for c in spec.conditions if c.kind != "vector"}
    return {**null, **rows.conditions}
