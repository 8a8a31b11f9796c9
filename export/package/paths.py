"""Names inside a package: relative, and never leading out of its folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from export.package.errors import PackageError, Reason

MODEL_FILE = "model.yaml"
VERSION = re.compile(r"^[1-9][0-9]{0,17}$")


def version_of(folder: Path) -> int:
    """The version that a folder's name is; raises PackageError (BAD_VERSION) where it is no integer."""
    if not VERSION.match(folder.name):
        raise PackageError(
            Reason.BAD_VERSION,
            folder,
            f"the version folder {folder.name!r} is not a positive integer",
            "Name it 1, 2, 3, … (no leading zeros)",
        )
    return int(folder.name)


def check_relative(folder: Path, file: str) -> None:
    """Refuse names that are absolute, climb with '..', or are not in plain form (PATH_ESCAPES)."""
    path = PurePosixPath(file)
    plain = file not in ("", ".") and str(path) == file and "\\" not in file and "\x00" not in file
    if path.is_absolute() or ".." in path.parts or not plain:
        raise PackageError(
            Reason.PATH_ESCAPES,
            folder / MODEL_FILE,
            f"the file name {file!r} is not a plain path inside the package",
            "Use relative names with '/', such as 'denoiser.onnx' or 'graphs/denoiser.onnx'",
        )


def resolve(folder: Path, file: str) -> Path:
    """The regular file that a name means, symlinks followed; it must lie under ``folder``.

    Raises PackageError: PATH_ESCAPES, MISSING_FILE.
    """
    check_relative(folder, file)
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise PackageError(
            Reason.PATH_ESCAPES,
            folder / file,
            f"it is a link that leaves the package (to {path})",
            "Copy the file into the package",
        )
    if not path.is_file():
        raise PackageError(
            Reason.MISSING_FILE,
            folder / file,
            f"{MODEL_FILE} lists this file, but it is not there"
            + (" as a regular file" if path.exists() else ""),
            "Restore it, or export the package again",
        )
    return path


def present(folder: Path) -> Iterator[str]:
    """Every file, link and special file under ``folder`` by its name inside the package, sorted."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix()
