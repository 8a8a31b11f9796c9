"""``pxserve-export zoo``: the reference models."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from export.progress import Progress

HELP = "export the reference models, or train one again"


def add(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="reference models (default: all)")
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="the repository: packages go to DIR/NAME/VERSION"
    )
    parser.add_argument(
        "--train", metavar="NAME", help="train this reference model again and keep its weights"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="write the data's splits as .npz files")
    parser.set_defaults(run=_zoo, parser=parser)


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
