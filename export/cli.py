"""The command ``pxserve-export``: packages from sources, and checks of packages."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from export.package.errors import PackageError
from export.package.paths import MODEL_FILE
from export.package.read import list_versions
from export.package.schema import Parity
from export.progress import Progress

REFUSED, MISUSED = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 where something was refused, 2 for wrong arguments."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except PackageError as error:
        sys.stderr.write(f"pxserve-export: {error}\n")
        return REFUSED
    except KeyboardInterrupt:
        sys.stderr.write("pxserve-export: interrupted; nothing half-written is left\n")
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pxserve-export", description="Turns trained generative models into model packages for pxserve."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_zoo(commands.add_parser("zoo", help="export the reference models, or train one again"))
    _add_verify(
        commands.add_parser("verify", help="check packages: files, hashes, graphs, rows alone and together")
    )
    return parser


def _add_zoo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="reference models (default: all)")
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="the repository: packages go to DIR/NAME/VERSION"
    )
    parser.add_argument(
        "--train", metavar="NAME", help="train this reference model again and keep its weights"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="write the data's splits as .npz files")
    parser.set_defaults(run=_zoo, parser=parser)


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="a package (DIR/model.yaml), or a repository of them"
    )
    parser.add_argument(
        "--allow-torchscript",
        action="store_true",
        help="open TorchScript that is not of the bundled zoo; it is code",
    )
    parser.set_defaults(run=_verify)


def _zoo(options: argparse.Namespace) -> int:
    if sum(given is not None for given in (options.to, options.train, options.data)) != 1:
        options.parser.error("give one of --to DIR, --train NAME and --data DIR")
    if options.data:
        return _data(options.data)
    from export.zoo.registry import ENTRIES

    for name in [*options.names, *([options.train] if options.train else [])]:
        if name not in ENTRIES:
            options.parser.error(f"no reference model is called {name!r}; there are {', '.join(ENTRIES)}")
    if options.train:
        return _train(options.train)
    from export.zoo.build import build_all

    with Progress("zoo") as progress:
        written = build_all(options.to, options.names or None, progress)
    sys.stdout.writelines(f"{folder}\n" for folder in written)
    return 0


def _data(to: Path) -> int:
    from export.zoo.splits import write_splits

    sys.stdout.writelines(f"{path}\n" for path in write_splits(to))
    return 0


def _train(name: str) -> int:
    from export.zoo.train import train

    with Progress(f"train {name}") as progress:
        weights = train(name, progress)
    sys.stdout.write(f"{weights}\n")
    return 0


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
