"""A measured candidate becomes the graph that servers take first; the one before stays in the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.package.errors import PackageError, Reason
from export.package.read import Package, list_versions
from export.package.schema import Parity
from export.package.write import write_package
from export.tune.candidate import Row
from export.tune.forms import REFUSED


def keep(package: Package, rows: list[Row], name: str, *, replace: bool) -> Path:
    """Write the package with candidate ``name`` first, as its next version, or in its place (``replace``).

    Raises PackageError: BAD_VALUE (refused, not there, does not apply), those of ``write_package``.
    """
    row = _chosen(package, rows, name)
    draft = package.spec.model_dump(exclude={"files"})
    files: dict[str, Path | bytes] = {file: package.path(file) for file in package.spec.files}
    for component, form in row.forms.items():
        _put_first(draft["components"], component, row, package.spec.parity)
        files |= {file: form.folder / file for file in form.files}
    draft["parity"] = _worst([package.spec.parity, *row.parity.values()]).model_dump()
    repository = package.folder.parent.parent
    version = package.version if replace else max(list_versions(repository)[package.spec.name]) + 1
    return write_package(draft, files, repository, version, replace=replace)


def _chosen(package: Package, rows: list[Row], name: str) -> Row:
    if name in REFUSED:
        raise _bad(package, f"{name} is refused: {REFUSED[name]}", "Keep another candidate")
    row = next((row for row in rows[1:] if row.name == name), None)
    if row is None:
        known = ", ".join(row.name for row in rows[1:] if not row.absent)
        raise _bad(package, f"there is no candidate {name!r}", f"Keep one of {known}")
    if row.absent:
        raise _bad(package, f"{name} does not apply: {row.absent}", "Keep another candidate")
    return row


def _bad(package: Package, problem: str, fix: str) -> PackageError:
    return PackageError(Reason.BAD_VALUE, package.folder, problem, fix)


def _put_first(components: dict[str, Any], name: str, row: Row, before: Parity) -> None:
    """The form takes the component's place, and what was there becomes its first variant."""
    old = components[name]
    others = [variant for variant in old["variants"] if variant["file"] != row.forms[name].component.file]
    was = {key: value for key, value in old.items() if key != "variants"} | {"parity": before.model_dump()}
    new = row.forms[name].component.model_dump(exclude={"variants"})
    components[name] = {**new, "variants": [was, *others]}


def _worst(parities: list[Parity]) -> Parity:
    """What the package says of itself: errors of the worst of its first graphs."""
    worst = max(parities, key=lambda parity: parity.max_rel_error)
    nats = [parity.log_prob_error for parity in parities if parity.log_prob_error is not None]
    return worst.model_copy(
        update={
            "max_abs_error": max(parity.max_abs_error for parity in parities),
            "batch_invariant": all(parity.batch_invariant for parity in parities),
            "log_prob_error": max(nats, default=None),
        }
    )
