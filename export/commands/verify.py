"""``pxserve-export verify``: everything about a package that can be checked without its source."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from export.package.errors import PackageError
from export.package.paths import MODEL_FILE
from export.package.read import list_versions
from export.package.schema import Parity
from export.progress import Progress

HELP = "check packages: files, hashes, graphs, rows alone and together"
REFUSED = 1


def add(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="a package (DIR/model.yaml), or a repository of them"
    )
    parser.add_argument(
        "--allow-torchscript",
        action="store_true",
        help="open TorchScript that is not of the bundled zoo; it is code",
    )
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    folders = _packages(options.folder)
    if not folders:
        sys.stderr.write(f"pxserve-export: {options.folder}: no package NAME/VERSION/model.yaml here\n")
        return REFUSED
    refused = [folder for folder in folders if not _verify_one(folder, options.allow_torchscript)]
    return REFUSED if refused else 0


def _packages(folder: Path) -> list[Path]:
    if (folder / MODEL_FILE).exists():
        return [folder]
    found = list_versions(folder)
    return [folder / name / str(version) for name, versions in found.items() for version in versions]


def _verify_one(folder: Path, allow_torchscript: bool) -> bool:
    from export.package.recheck import recheck

    try:
        with Progress(f"verify {folder}") as progress:
            package, found = recheck(folder, allow_torchscript=allow_torchscript, progress=progress)
    except PackageError as error:
        sys.stdout.write(f"{folder}: REFUSED\n")
        sys.stderr.write(f"pxserve-export: {error}\n")
        return False
    sys.stdout.write(f"{folder}: ok, {package.spec.family}, digest {package.digest[:16]}\n")
    sys.stdout.writelines(f"  {name}: {_rows(parity)}\n" for name, parity in found.items())
    return True


def _rows(parity: Parity) -> str:
    return (
        "rows bitwise the same alone and in batches"
        if parity.batch_invariant
        else "rows differ in the last bits"
    )
