"""Flags that every importer shares: where a package goes, and what no file states."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from export.package.errors import PackageError, Reason
from export.package.read import read_package


def add_target(parser: argparse.ArgumentParser) -> None:
    """``--to``, ``--name``, ``--version``, ``--replace``, ``--tolerance``, ``--vjp``."""
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="the repository: packages go to DIR/NAME/VERSION"
    )
    parser.add_argument("--name", help="of the model: lower-case letters, digits, '.', '_' and '-'")
    parser.add_argument("--version", type=int, metavar="N", help="default: the next one")
    parser.add_argument("--replace", action="store_true", help="overwrite that version")
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="T",
        help="largest error against the source, of its largest output (default 1e-4 in float32)",
    )


def add_stated(parser: argparse.ArgumentParser) -> None:
    """What no file states: licence, description, labels and their null, levels, range."""
    parser.add_argument(
        "--license", default="", metavar="SPDX", help="shown to callers: MIT, Apache-2.0, ..."
    )
    parser.add_argument("--description", default="", metavar="TEXT", help="shown to callers")
    parser.add_argument(
        "--labels", default="", metavar="A,B,...", help="names of the classes, or a file of lines"
    )
    parser.add_argument("--null-label", type=int, metavar="ID", help="the class id that means 'none given'")


def labels(given: str) -> list[str]:
    """Names of classes from ``A,B,C``, or from a file with one per line."""
    if not given:
        return []
    if Path(given).is_file():
        return [line.strip() for line in Path(given).read_text(encoding="utf-8").splitlines() if line.strip()]
    return [name.strip() for name in given.split(",")]


def required(options: argparse.Namespace, name: str) -> tuple[Path, str]:
    """The repository and the model's name; BAD_SPECIFICATION where one is missing."""
    for flag, value, meaning in (("--to DIR", options.to, "where the package goes"),
                                 ("--name NAME", name, "what callers call the model")):  # fmt: skip
        if not value:
            raise PackageError(
                Reason.BAD_SPECIFICATION, "command line", f"{meaning} is not stated", f"Add {flag}"
            )
    return options.to, name


def finished(folder: Path) -> int:
    """Tell where the package is and how exact; the exit status."""
    parity = read_package(folder, verify=False).spec.parity
    invariant = (
        "bitwise the same alone and in batches" if parity.batch_invariant else "differ in the last bits"
    )
    sys.stderr.write(
        f"pxserve-export: largest error {parity.max_abs_error:.2g} ({parity.max_rel_error:.2g} relative), "
        f"{parity.inputs}; rows {invariant}\n"
    )
    sys.stdout.write(f"{folder}\n")
    return 0


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The flags of ``add_stated`` (and levels and range) as keys of a specification."""
    found: dict[str, Any] = {
        "license": options.license,
        "description": options.description,
        "data.levels": options.levels,
        "data.data_range": list(options.data_range) if options.data_range else None,
    }
    return {key: value for key, value in found.items() if value not in (None, "")}
