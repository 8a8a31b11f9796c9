"""``model.yaml`` as text: readable when written, strict when read."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from export.package.errors import PackageError, Reason
from export.package.schema import FORMAT_VERSION, ModelSpec

HEADER = "# A pxserve model package: what the model is, its graphs, and the SHA-256 of each file.\n"
LINE_WIDTH = 110
MODEL_FILE_BYTES = 16 << 20  # far above any schedule; a larger file is no model.yaml

_TENSOR_KEYS = {"name", "dtype", "shape"}
_SCALARS = (str, int, float, bool, type(None))


class _Dumper(yaml.SafeDumper):
    """Plain lists and tensors on one line (wrapped), everything else in blocks, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _list(dumper: _Dumper, data: list[Any]) -> yaml.SequenceNode:
    flow = all(isinstance(item, _SCALARS) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)


def _mapping(dumper: _Dumper, data: dict[str, Any]) -> yaml.MappingNode:
    flow = set(data) == _TENSOR_KEYS or not data
    return dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=flow)


def _text(dumper: _Dumper, data: str) -> yaml.ScalarNode:
    style = "|" if "\n" in data else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(list, _list)
_Dumper.add_representer(dict, _mapping)
_Dumper.add_representer(str, _text)


def to_yaml(spec: ModelSpec) -> bytes:
    """The bytes of ``model.yaml``; floats keep every bit, absent values are left out."""
    data = spec.model_dump(mode="json", exclude_none=True)
    text = yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, width=LINE_WIDTH, allow_unicode=True, default_flow_style=False
    )
    return (HEADER + text).encode()


_BASE: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class _Loader(_BASE):  # type: ignore[misc]
    """Refuses repeated keys, of which a reader would see only the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is no text, or appears twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)  # type: ignore[no-any-return]


def read_yaml(path: Path) -> tuple[dict[str, Any], bytes]:
    """The mapping in ``path`` and its bytes.

    Raises PackageError: MISSING_FILE, UNREADABLE_YAML, FORMAT_VERSION.
    """
    data = _bytes(path)
    value = _mapping_in(path, data)
    version = value.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise PackageError(
            Reason.FORMAT_VERSION,
            path,
            f"format_version is {version!r}; this release reads {FORMAT_VERSION}",
            "Export the package again with this release, or use the release that wrote it",
        )
    return value, data


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in any YAML file, as strictly read (MISSING_FILE, UNREADABLE_YAML)."""
    if not path.is_file():
        raise PackageError(Reason.MISSING_FILE, path, "there is no such file", "Check the path")
    return _mapping_in(path, _bytes(path))


def _mapping_in(path: Path, data: bytes) -> dict[str, Any]:
    try:
        value = _load(data.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _unreadable(path, f"not YAML in UTF-8: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise _unreadable(path, "not a mapping of keys to values")
    return value


def _load(text: str) -> Any:
    """Without anchors: a few of them can stand for more data than fits in memory."""
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, _Loader)):
        raise yaml.YAMLError("anchors and aliases are not allowed")
    return yaml.load(text, _Loader)


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise PackageError(
            Reason.MISSING_FILE,
            path,
            "there is no such file, so this folder is not a package",
            "Export the model again, or point to a folder NAME/VERSION that holds model.yaml",
        )
    with path.open("rb") as file:
        data = file.read(MODEL_FILE_BYTES + 1)
    if len(data) > MODEL_FILE_BYTES:
        raise _unreadable(path, f"larger than {MODEL_FILE_BYTES} bytes")
    return data


def _unreadable(path: Path, problem: str) -> PackageError:
    return PackageError(
        Reason.UNREADABLE_YAML, path, problem, "Correct the file, or export the package again"
    )
