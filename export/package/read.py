"""Reading a package from ``REPOSITORY/NAME/VERSION``: everything is checked before anything is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.package.components import check_components
from export.package.digest import sha256_bytes, sha256_file
from export.package.errors import PackageError, Reason
from export.package.parse import parse_spec
from export.package.paths import MODEL_FILE, VERSION, present, resolve, version_of
from export.package.schema import MODEL_NAME, ModelSpec
from export.package.text import read_yaml


@dataclass(frozen=True)
class Package:
    """A package on disk. ``digest``: SHA-256 of ``model.yaml``, which names the hashes of all other files."""

    spec: ModelSpec
    folder: Path
    version: int
    digest: str

    def path(self, file: str) -> Path:
        """Where a file of the package is, as named in ``model.yaml``."""
        return self.folder / file

    def component_path(self, component: str) -> Path:
        """Where a component's graph is; KeyError where there is no such component."""
        return self.folder / self.spec.components[component].file


def read_package(folder: Path, *, verify: bool = True) -> Package:
    """Read ``REPOSITORY/NAME/VERSION``; ``verify`` false skips the hashes of the files, nothing else.

    Raises PackageError: MISSING_FOLDER, BAD_VERSION, NAME_MISMATCH, MISSING_FILE, UNREADABLE_YAML,
    FORMAT_VERSION, UNKNOWN_KEY, MISSING_KEY, BAD_VALUE, PATH_ESCAPES, UNLISTED_FILE, WRONG_HASH,
    MISSING_COMPONENT, UNKNOWN_COMPONENT, WRONG_SHAPE, GRAPH_MISMATCH. It opens no graph (``check_graphs``).
    """
    folder = folder.absolute()
    if not folder.is_dir():
        raise PackageError(
            Reason.MISSING_FOLDER,
            folder,
            "there is no such folder",
            "Check the path: REPOSITORY/NAME/VERSION",
        )
    version = version_of(folder)
    package = read_folder(folder, version, verify=verify)
    if package.spec.name != folder.parent.name:
        raise PackageError(
            Reason.NAME_MISMATCH,
            folder / MODEL_FILE,
            f"name is {package.spec.name!r}, but the package lies under {folder.parent.name!r}",
            "Rename the folder to the model's name",
        )
    return package


def read_folder(folder: Path, version: int, *, verify: bool = True) -> Package:
    """The package in ``folder``, whatever the folder is called."""
    value, text = read_yaml(folder / MODEL_FILE)
    spec = parse_spec(folder / MODEL_FILE, value)
    check_components(folder / MODEL_FILE, spec)
    check_listing(folder, spec)
    if verify:
        check_hashes(folder, spec)
    return Package(spec, folder, version, sha256_bytes(text))


def check_listing(folder: Path, spec: ModelSpec) -> None:
    """The files that are listed are the files that are there (MISSING_FILE, UNLISTED_FILE, PATH_ESCAPES)."""
    for file in spec.files:
        resolve(folder, file)
    extra = [file for file in present(folder) if file not in spec.files and file != MODEL_FILE]
    if extra:
        raise PackageError(
            Reason.UNLISTED_FILE,
            folder / extra[0],
            f"{MODEL_FILE} does not list this file"
            + (f" (nor {len(extra) - 1} others)" if extra[1:] else ""),
            "Remove it, or export the package again with it",
        )


def check_hashes(folder: Path, spec: ModelSpec) -> None:
    """Every file has the SHA-256 that ``model.yaml`` gives (WRONG_HASH)."""
    for file, expected in spec.files.items():
        found = sha256_file(folder / file)
        if found != expected:
            raise PackageError(
                Reason.WRONG_HASH,
                folder / file,
                f"its SHA-256 is {found}, not {expected}: the file was changed or damaged",
                "Restore the file, or export the package again",
            )


def list_versions(repository: Path) -> dict[str, list[int]]:
    """Model name -> its versions, ascending; what is hidden, temporary or no version is left out."""
    found: dict[str, list[int]] = {}
    for model in sorted(repository.iterdir()) if repository.is_dir() else []:
        if not MODEL_NAME.match(model.name) or not model.is_dir():
            continue
        versions = sorted(int(v.name) for v in model.iterdir() if VERSION.match(v.name) and v.is_dir())
        if versions:
            found[model.name] = versions
    return found
