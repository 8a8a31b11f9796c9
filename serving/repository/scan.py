"""Which model versions a folder holds: MODELS/NAME/VERSION/model.yaml."""

from __future__ import annotations

from pathlib import Path

from export.package.schema import MODEL_NAME
from serving.engine.messages import ModelKey

MANIFEST = "model.yaml"


def versions_in(root: Path) -> dict[ModelKey, Path]:
    """Package folders by name and version, in order; whatever else lies there is left alone.

    Names come from listing the folder and are compared with what a request asks for: no text of a
    request ever becomes a path.
    """
    found = {
        ModelKey(folder.name, int(version.name)): version
        for folder in _folders(root)
        if MODEL_NAME.match(folder.name)
        for version in _folders(folder)
        if _is_version(version.name) and (version / MANIFEST).is_file()
    }
    return {key: found[key] for key in sorted(found, key=lambda key: (key.name, key.version))}


def calibration_path(package_folder: Path) -> Path:
    """The calibration of MODELS/NAME/VERSION lies beside it: NAME/calibration-VERSION.json."""
    return package_folder.parent / f"calibration-{package_folder.name}.json"


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and not name.startswith("0") and len(name) <= 18
