"""``package.module:function``: the user's own code builds the network, loads and describes it."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from export.importers.spec_file import CLASSES, specification_error
from export.model import ClassCondition, Model
from export.package.errors import PackageError, Reason


def build_model(target: str, folder: Path, arguments: Mapping[str, str]) -> Model:
    """Call ``MODULE:FUNCTION`` with keyword ``arguments``; its answer must be a model of ``export.model``.

    ``folder`` is appended to the import path, so that no installed package is hidden by a file in it.
    Raises PackageError (BAD_SOURCE, BAD_SPECIFICATION); other errors of the user's code pass through.
    """
    name, separator, function = target.partition(":")
    if not separator or not name or not function:
        raise _bad(target, "this is no MODULE:FUNCTION", "Write it as mypackage.nets:build")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    module = _module(target, name, folder)
    build = getattr(module, function, None)
    if not callable(build):
        raise _bad(target, f"{module.__file__} defines no function {function!r}", "Correct the name")
    model = _called(target, build, arguments)
    if not isinstance(model, Model):
        raise _bad(
            target,
            f"{function}() returned a {type(model).__name__}",
            f"Return one of export.model's {', '.join(kind.__name__ for kind in CLASSES.values())}",
        )
    return model


def _module(target: str, name: str, folder: Path) -> Any:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise _bad(
            target,
            f"there is no module {name!r} in {folder} or among what is installed",
            "Check the name, or --path",
        ) from error
    own = folder / Path(*name.split("."))
    candidates = (own.with_suffix(".py"), own / "__init__.py")
    file = Path(module.__file__ or "")
    if any(c.exists() for c in candidates) and file.resolve() not in {c.resolve() for c in candidates}:
        raise _bad(
            target,
            f"{name!r} is also an installed module ({file}), which comes first",
            "Rename yours: the folder is appended to the import path, so that it hides nothing",
        )
    return module


def _called(target: str, build: Any, arguments: Mapping[str, str]) -> Any:
    try:
        return build(**arguments)
    except ValidationError as error:
        kind = next((kind for kind in CLASSES.values() if kind.__name__ == error.title), None)
        if kind is None:
            raise _bad(target, " ".join(str(error).split()), "Correct the specification") from error
        raise specification_error(target, kind, error) from error


def stated(
    model: Model,
    *,
    license: str = "",
    description: str = "",
    labels: Sequence[str] = (),
    null: int | None = None,
) -> Model:
    """``model`` with what flags say about it; BAD_SPECIFICATION where it has no class condition for them."""
    changes: dict[str, Any] = {
        key: value for key, value in (("license", license), ("description", description)) if value
    }
    if labels or null is not None:
        changes["conditions"] = tuple(_labelled(model, labels, null))
    return dataclasses.replace(model, **changes)


def _labelled(model: Model, labels: Sequence[str], null: int | None) -> list[Any]:
    classes = [c for c in model.conditions if isinstance(c, ClassCondition)]
    if len(classes) != 1:
        raise PackageError(
            Reason.BAD_SPECIFICATION,
            "--labels, --null-label",
            f"the model has {len(classes)} class conditions",
            "Say names and null_value in the specification",
        )
    names = tuple(labels) or classes[0].names
    changed = ClassCondition(
        classes[0].name,
        classes[0].classes,
        null_value=classes[0].null_value if null is None else null,
        names=names,
        one_hot=classes[0].one_hot,
    )
    return [changed if condition is classes[0] else condition for condition in model.conditions]


def _bad(target: str, problem: str, fix: str) -> PackageError:
    return PackageError(Reason.BAD_SOURCE, target, problem, fix)
