"""A specification file as a model: the same keys as the classes of ``export.model``, strictly read."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from export.importers.lines import MAIN, NETWORKS, UNDECIDED, known_keys, suggestion
from export.model import Autoencoder, Autoregressive, Diffusion, Gan, Model, Vae
from export.package.errors import PackageError, Reason
from export.package.text import read_mapping

CLASSES: dict[str, type[Model]] = {
    "autoregressive": Autoregressive,
    "autoencoder": Autoencoder,
    "vae": Vae,
    "gan": Gan,
    "diffusion": Diffusion,
}
_TAGS = {
    *(
        "module",
        "graph",
        "network",
        "image",
        "vector",
        "tokens",
        "class",
        "bernoulli",
        "gaussian",
        "categorical",
    ),
    *(
        "discretized_logistic",
        "linear_betas",
        "scaled_linear_betas",
        "cosine_betas",
        "betas",
        "alphas_cumprod",
    ),
    *("geometric_sigmas", "sigmas", "straight_path", "symbol", "condition"),
}  # of unions, which are no keys of the file
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
KEYS = {"kind", "file", "inputs", "outputs", "layout", *known_keys()}  # anywhere
TOP = {*MAIN, "data", "conditions", "networks"}


def read_specification(
    path: Path, overrides: Mapping[str, Any], files: Mapping[str, Path]
) -> tuple[str, Model]:
    """The name ("" where the file gives none) and the model.

    ``overrides``: dotted key -> value, from flags; they fill in what the file leaves open. ``files``: of
    networks, from the command line. Files that the specification names lie beside it.
    Raises PackageError: MISSING_FILE, UNREADABLE_YAML, BAD_SPECIFICATION with the line to add.
    """
    value = read_mapping(path)
    for key, given in overrides.items():
        _fill(path, value, key, given)
    undecided = next(_undecided(value, ""), None)
    if undecided is not None:
        raise _refused(path, f"{undecided} still says {UNDECIDED}", _add(undecided, "Decide, for example:  "))
    family = value.get("family")
    if family not in CLASSES:
        raise _refused(path, f"family is {family!r}", f"One of {', '.join(CLASSES)}")
    known = {*TOP, str(family)}
    for key in value:
        if key not in known:
            raise _unknown(path, key, known)
    return str(value.get("name") or ""), _model(path, str(family), value, files)


def _model(path: Path, family: str, value: dict[str, Any], files: Mapping[str, Path]) -> Model:
    section, networks = value.get(family) or {}, value.get("networks") or {}
    for key, part in ((family, section), ("networks", networks)):
        if not isinstance(part, dict):
            raise _refused(path, f"{key} is no mapping of keys to values", "Correct it")
    for name in files:
        networks.setdefault(name, {})
    for name in networks:
        if name not in NETWORKS[family]:
            raise _unknown(path, f"networks.{name}", {f"networks.{n}" for n in NETWORKS[family]})
    common = {key: value[key] for key in ("license", "description", "data", "conditions") if key in value}
    arguments = {
        **common,
        **section,
        **{name: _located(path, networks[name], files.get(name)) for name in networks},
    }
    try:
        return TypeAdapter(CLASSES[family]).validate_python(arguments)
    except ValidationError as error:
        raise specification_error(path, CLASSES[family], error, arguments) from error


def _located(path: Path, network: Any, file: Path | None) -> Any:
    if not isinstance(network, dict):
        return network
    if file is not None:
        return {**network, "file": file}
    return {**network, "file": path.parent / str(network["file"])} if "file" in network else network


def specification_error(
    where: Path | str,
    kind: type[Model],
    error: ValidationError,
    arguments: Mapping[str, Any] = {},
) -> PackageError:
    """What pydantic found, as one refusal that shows the line to add."""
    found = error.errors(include_url=False)
    first = next((entry for entry in found if entry["type"] in _UNKNOWN), found[0])  # a typo explains more
    key = _key(first, kind)
    leaf = key.rpartition(".")[2]
    match first["type"]:
        case "missing":
            return _refused(where, f"{key} is missing", _add(key))
        case kind_of_error if kind_of_error in _UNKNOWN:
            return _unknown(where, key, {field.name for field in dataclasses.fields(kind)} | KEYS)
    text = first["msg"].removeprefix("Value error, ")
    shown = "" if first["type"] == "value_error" else f", not {_short(arguments, first)}"
    close = _add(leaf) if first["type"] != "value_error" else "Correct the specification"
    return _refused(where, f"{key}: {text}{shown}" if key else f"{text}{shown}", close)


def _key(error: ErrorDetails, kind: type[Model]) -> str:
    """The key as the file has it."""
    parts = [str(p) for i, p in enumerate(error["loc"]) if i == 0 or str(p) not in _TAGS]
    family = next(name for name, known in CLASSES.items() if known is kind)
    if parts and parts[0] in NETWORKS[family]:
        parts = ["networks", *parts]
    elif parts and parts[0] not in TOP:
        parts = [family, *parts]
    return ".".join(parts)


def _short(arguments: Mapping[str, Any], error: ErrorDetails) -> str:
    return repr(error.get("input", arguments))[:60]


def _add(key: str, before: str = "Add  ") -> str:
    line = suggestion(key.rpartition(".")[2])
    return f"{before}{line}" if line else f"Correct {key}; pxserve-export template FAMILY shows every key"


def _unknown(where: Path | str, key: str, known: set[str]) -> PackageError:
    leaf = key.rpartition(".")[2]
    near = [name for given in (key, leaf) for name in difflib.get_close_matches(given, sorted(known), n=1)]
    hint = f"did you mean {near[0]!r}?" if near else "pxserve-export template FAMILY shows every key"
    return _refused(where, f"{key}: no such key", f"Remove it; {hint}")


def _refused(where: Path | str, problem: str, fix: str) -> PackageError:
    return PackageError(Reason.BAD_SPECIFICATION, where, problem, fix)


def _fill(path: Path, value: dict[str, Any], key: str, given: Any) -> None:
    """Set a dotted key that is open, or says the same already."""
    *parents, leaf = key.split(".")
    for part in parents:
        value = value.setdefault(part, {})
        if not isinstance(value, dict):
            raise _refused(path, f"{part} is no mapping of keys to values", "Correct it")
    if value.get(leaf, UNDECIDED) not in (UNDECIDED, given):
        raise _refused(path, f"{key} is {value[leaf]!r}, but the flag says {given!r}", "Correct one of them")
    value[leaf] = given


def _undecided(value: Any, key: str) -> Iterator[str]:
    if value == UNDECIDED:
        yield key
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, inner in pairs:
        yield from _undecided(inner, f"{key}.{part}".lstrip("."))
