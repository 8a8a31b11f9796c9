"""Which model versions a folder holds: MODELS/NAME/VERSION/model.yaml."""

from __future__ import annotations

from pathlib import Path

from export.package.read import list_versions
from serving.engine.messages import ModelKey

Stamp = tuple[tuple[str, int, int], ...]


def versions_in(root: Path) -> dict[ModelKey, Path]:
    """Package folders by name and version, in order.

    Names come from listing the folder and are compared with what a request asks for: no text of a
    request ever becomes a path.
    """
    return {
        ModelKey(name, version): root / name / str(version)
        for name, versions in list_versions(root).items()
        for version in versions
    }


def calibration_path(package_folder: Path) -> Path:
    """The calibration of MODELS/NAME/VERSION lies beside it: NAME/calibration-VERSION.json."""
    return package_folder.parent / f"calibration-{package_folder.name}.json"


def stamp_of(package_folder: Path) -> Stamp:
    """Name, size and time of every file of a package: another stamp, other files. No file is opened."""
    found = []
    for path in sorted(package_folder.rglob("*")):
        try:
            stat = path.stat()
        except OSError:  # it vanished meanwhile
            continue
        if path.is_file():
            found.append((str(path.relative_to(package_folder)), stat.st_size, stat.st_mtime_ns))
    return tuple(found)
