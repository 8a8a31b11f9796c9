"""A folder of ``save_pretrained``: its configuration, and what it says about beginnings and ends of rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from export.transformers.families.registry import ARCHITECTURES, Architecture
from export.transformers.refusal import bad_source, unsupported

INSTALL = "pip install 'pxserve-export[transformers]'"


@dataclass(frozen=True)
class Source:
    """``config``: transformers' own object, with every default filled in; the rest are files as read."""

    folder: Path
    architecture: str
    config: Any
    generation: Mapping[str, Any]

    @property
    def entry(self) -> Architecture:
        """How it is written."""
        return ARCHITECTURES[self.architecture]

    @property
    def positions(self) -> int:
        """The longest row that the network was made for."""
        return int(getattr(self.config, self.entry.positions))

    def stated(self, name: str) -> Any:
        """A setting of generation_config.json, else of config.json."""
        found = self.generation.get(name)
        return getattr(self.config, name, None) if found is None else found


def read_folder(folder: Path) -> Source:
    """Read the folder's configuration; raises PackageError where something is missing or unsupported."""
    if not folder.is_dir():
        raise bad_source(folder, "there is no such folder", "Point to a folder of save_pretrained")
    written = _json(folder / "config.json", required=True)
    named = written.get("architectures") or []
    architecture = named[0] if isinstance(named, list) and len(named) == 1 else ""
    if "auto_map" in written and architecture not in ARCHITECTURES:
        raise unsupported(folder, "the folder brings code of its own (auto_map), which is never run", _KNOWN)
    if "quantization_config" in written:
        raise unsupported(
            folder, "the weights are quantised already", "Export the float weights, with --weights"
        )
    if architecture not in ARCHITECTURES:
        raise unsupported(folder, f"config.json: architectures is {named}", _KNOWN)
    config = _config(folder)
    return Source(folder, architecture, config, _json(folder / "generation_config.json"))


_KNOWN = f"Supported: {', '.join(ARCHITECTURES)}. Others: pxserve-export module"


def _json(path: Path, *, required: bool = False) -> Mapping[str, Any]:
    if not path.is_file():
        if required:
            raise bad_source(path, "there is no such file", "Point to a folder of save_pretrained")
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise bad_source(path, f"not JSON ({error})", "Save the model again") from error
    if not isinstance(found, dict):
        raise bad_source(path, "not a JSON object", "Save the model again")
    return found


def _config(folder: Path) -> Any:
    try:
        library: Any = import_module("transformers")
    except ImportError as error:
        raise bad_source(folder, "reading it needs the library transformers", INSTALL) from error
    try:
        return library.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever its validators raise
        problem = f"transformers does not read this configuration ({_line(error)})"
        raise bad_source(folder / "config.json", problem, "Save the model again") from error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
