"""A described model becomes a package: all graphs written and compared, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from export.assemble.causality import check_causal
from export.assemble.made import Made, Order, Say
from export.model.autoregressive import Autoregressive
from export.model.base import Model, Part
from export.model.network import Graph, Network
from export.package.errors import PackageError, Reason
from export.package.parse import parse_spec
from export.package.read import list_versions
from export.package.run_graph import open_graph
from export.package.schema import MODEL_NAME, Parity
from export.package.verify import TOLERANCES, verify
from export.package.write import staging, write_package

Progress = Callable[[str, float], None]
UNKNOWN_PARITY = {"max_abs_error": 0.0, "max_rel_error": 0.0, "inputs": "not yet compared"}


@dataclass(frozen=True)
class Target:
    """Where a package goes and how its graphs are made; ``version`` None: the next one.

    ``tolerance`` None: by the precision of the weights (``TOLERANCES``). ``precisions``: of the graphs of a
    loop's network, the first is the component, the others are its variants.
    """

    to: Path
    name: str
    version: int | None = None
    replace: bool = False
    format: str = "onnx"
    vjp: bool = False
    tolerance: float | None = None
    precisions: tuple[str, ...] = ("float32",)

    @property
    def next_version(self) -> int:
        """The version to write."""
        if self.version is not None:
            return self.version
        return max(list_versions(self.to).get(self.name, [0])) + 1


def to_stderr(note: str) -> None:
    """Notes of an export, for people."""
    sys.stderr.write(f"pxserve-export: {note}\n")


def write_model(model: Model, target: Target, progress: Progress, say: Say = to_stderr) -> Path:
    """Write the package of ``model`` and return its folder.

    Raises PackageError: BAD_SPECIFICATION, those of the components' sources, PARITY, those of
    ``write_package``.
    """
    _check_stated(model, target)
    parts = _parts(model)
    draft = _draft(model, target, parts)
    names = (*(f"{name}.tmp" for name in parts), *model.files())
    spec = parse_spec("specification", {**draft, "files": dict.fromkeys(names, "0" * 64)})
    with staging(target.to, target.name) as folder:
        order = Order(spec, folder, target.format, target.vjp, say, target.precisions)
        _try_all(parts, order)
        made, parities = [], []
        for index, part in enumerate(_components(parts, order)):
            progress(f"comparing {part.name}", (index + 0.5) / (len(parts) + 1))
            parities.append(_verified(model, part, target.tolerance))
            made.append(part)
        progress("writing", 0.95)
        draft["components"] = _entries(made, parities)
        draft["parity"] = worst(
            [p for part, p in zip(made, parities, strict=True) if not part.variant]
        ).model_dump()
        files: dict[str, Path | bytes] = {file: folder / file for part in made for file in part.files}
        files |= model.files()
        return write_package(draft, files, target.to, target.next_version, replace=target.replace)


def _try_all(parts: dict[str, Part], order: Order) -> None:
    from export.assemble.files import try_file
    from export.assemble.modules import try_module

    for name, part in parts.items():
        (try_file if isinstance(part.network, Graph) else try_module)(name, part, order)


def _components(parts: dict[str, Part], order: Order) -> Iterator[Made]:
    from export.assemble.files import file_components
    from export.assemble.modules import module_components

    for name, part in parts.items():
        source = file_components if isinstance(part.network, Graph) else module_components
        yield from source(name, part, order)


def _verified(model: Model, made: Made, tolerance: float | None) -> Parity:
    tolerance = tolerance or TOLERANCES[made.component.precision]
    run = open_graph(made.path, made.component)
    try:
        parity = verify(run, made.source, made.inputs, tolerance=tolerance)
    except PackageError as error:
        doubt, fix = made.doubt or ("", error.fix)
        raise PackageError(error.reason, made.name, f"{doubt}{error.problem}", fix) from error
    if isinstance(model, Autoregressive) and made.name == "scorer":
        check_causal(run, made.inputs, model.data.levels, shifted=model.begin != "none")
    return parity


def _entries(made: list[Made], parities: list[Parity]) -> dict[str, Any]:
    """``components`` of ``model.yaml``; a variant is an entry of the component before it."""
    found: dict[str, Any] = {}
    for part, parity in zip(made, parities, strict=True):
        if part.variant:
            found[part.name].setdefault("variants", []).append({**part.entry, "parity": parity.model_dump()})
        else:
            found[part.name] = dict(part.entry)
    return found


def worst(parities: list[Parity]) -> Parity:
    """One parity for a whole package."""
    return Parity(
        max_abs_error=max(parity.max_abs_error for parity in parities),
        max_rel_error=max(parity.max_rel_error for parity in parities),
        inputs=parities[0].inputs,
        batch_invariant=all(parity.batch_invariant for parity in parities),
    )


def _check_stated(model: Model, target: Target) -> None:
    if not MODEL_NAME.match(target.name):
        raise _unstated(
            f"name {target.name!r}: lower-case letters, digits, '.', '_' and '-', at most 64 of them",
            "Choose such a name (--name, or name=)",
        )
    if not model.license:
        raise _unstated(
            "license is not stated, and callers are shown it",
            "Add license='MIT' (any SPDX identifier, or 'LicenseRef-proprietary'), or --license",
        )


def _parts(model: Model) -> dict[str, Part]:
    try:
        return model.parts()
    except ValueError as error:
        raise _unstated(
            str(error), "Correct inputs and outputs: the package's name -> the network's"
        ) from error


def _unstated(problem: str, fix: str) -> PackageError:
    return PackageError(Reason.BAD_SPECIFICATION, "specification", problem, fix)


def _draft(model: Model, target: Target, parts: dict[str, Part]) -> dict[str, Any]:
    kinds = {name: part.wiring.component("onnx", f"{name}.tmp") for name, part in parts.items()}
    return {
        "format_version": 1,
        "name": target.name,
        "family": model.family,
        "description": model.description or f"{model.family} exported from {_origin(parts)}",
        "license": model.license,
        "data": model.data_section(),
        "conditions": [condition.section() for condition in model.conditions],
        "components": kinds,
        model.family: model.section(),
        "parity": UNKNOWN_PARITY,
        "provenance": _provenance(parts),
    }


def _origin(parts: dict[str, Part]) -> str:
    return ", ".join(dict.fromkeys(_described(part.network) for part in parts.values()))


def _described(network: Network | Graph) -> str:
    if isinstance(network, Graph):
        return network.file.name
    kind = type(network.module)
    return f"{kind.__module__}.{kind.__qualname__}"


def _provenance(parts: dict[str, Part]) -> dict[str, str]:
    found = {"source": _origin(parts)}
    for distribution in ("torch", "pxserve-export"):
        try:
            found[distribution] = version(distribution)
        except PackageNotFoundError:
            continue
    return found
