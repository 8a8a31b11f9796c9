"""The subcommand ``pxserve-server evaluate``: is the package understood right, and how good is it?"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serving.commands.dataset import read_dataset
from serving.commands.evaluate import Figure, Wanted, evaluate
from serving.commands.meaning.check import Check
from serving.commands.meaning.run import against, meaning
from serving.commands.offline import offline

HELP = "check on held-out rows that a package means what it says, and measure it by every method"


def add(parser: argparse.ArgumentParser) -> None:
    """Its own flags."""
    parser.add_argument(
        "--only", choices=["meaning", "figures"], help="only the checks (seconds), or only the figures"
    )
    parser.add_argument(
        "--against",
        metavar="MODEL[/VERSION]",
        help="which of the two fits these rows better, by the same loss",
    )
    parser.add_argument("--rows", type=int, default=0, help="rows of the figures; 0: all")
    parser.add_argument("--method", action="append", default=[], help="only this one; may be repeated")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=VALUE",
        help="a parameter, for the methods that have it; surrogate_sigma makes a GAN's surrogate apply",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object per check or figure")


def run(given: argparse.Namespace) -> int:
    """Exit status: 0 where every check passed (or none was asked for), else 1."""
    passed = True
    if given.only != "figures" and not given.method:
        for check in _checks(given):
            passed = passed and check.passed
            _write(json.dumps({"check": check.name, **check.as_dict()}) if given.json else check.line)
    if given.only != "meaning":
        wanted = Wanted(given.rows, tuple(given.method), dict(given.set))
        folder, data = Path(given.models), Path(given.data)
        for figure in evaluate(folder, given.model, given.version, data, wanted, given.threads):
            _write(json.dumps(figure.as_dict()) if given.json else _shown(figure))
    return 0 if passed else 1


def _checks(given: argparse.Namespace) -> Iterator[Check]:
    models = Path(given.models)
    with offline(models, given.model, given.version, given.threads) as running:
        rows = read_dataset(Path(given.data), running.package.spec)
        yield from meaning(running, rows, given.threads)
        if given.against:
            name, _, version = given.against.partition("/")
            with offline(models, name, int(version) if version else None, given.threads) as other:
                yield against(running, other, rows, given.threads)


def _shown(figure: Figure) -> str:
    value = f"{figure.mean:.4f} ± {figure.standard_error:.4f} {figure.unit}"
    about = f"{figure.kind}, {figure.target}" if figure.target else figure.kind
    return f"{figure.operation:<12} {figure.method:<22} {value}  ({about}; {figure.rows} rows)"


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _setting(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    with contextlib.suppress(json.JSONDecodeError):
        return name, json.loads(value)
    return name, value
