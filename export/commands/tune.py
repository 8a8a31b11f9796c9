"""``pxserve-export tune DIR``: other forms of a package's graphs, their speed here and their error."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from export.package.errors import PackageError, Reason
from export.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from export.package.read import Package

HELP = "measure other forms of a package's graphs (fewer bits, fusions) on this machine; keep one"


def add(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="a package: MODELS/NAME/VERSION")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1, 8], metavar="N", help="of a timed run (default: 1 8)"
    )
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="of all candidates (default: 9)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="default: one per core")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="candidates: fused int8-32 int8-128 int4-32 int4-128 bfloat16",
    )
    parser.add_argument(
        "--keep", metavar="NAME", help="write the next version, in which servers take this candidate first"
    )
    parser.add_argument("--replace", action="store_true", help="with --keep: in place of this version")
    parser.add_argument(
        "--module", metavar="MODULE:FUNCTION", help="the torch networks, as for 'module': bfloat16 needs them"
    )
    parser.add_argument("--path", type=Path, default=Path(), metavar="DIR",
                        help="folder appended to the import path (default: this one)")  # fmt: skip
    parser.set_defaults(run=_tune)


def _tune(options: argparse.Namespace) -> int:
    from export.package.read import read_package
    from export.tune.forms import candidates
    from export.tune.keep import keep
    from export.tune.measure import made_rows, measure
    from export.tune.table import table

    package = read_package(options.folder)
    threads = _threads(options.threads)
    wanted = candidates(package, _modules(options, package))
    wanted = [one for one in wanted if not options.only or one.name in (*options.only, options.keep)]
    with tempfile.TemporaryDirectory(prefix="pxserve-tune-") as folder, Progress("tune") as progress:
        rows = made_rows(package, wanted, Path(folder), progress)
        measure(package, rows, options.rows, options.rounds, threads, progress)
        sys.stdout.write(
            f"{package.folder}: {threads} threads, {options.rounds} interleaved rounds, medians\n"
        )
        sys.stdout.write(table(rows, options.rows))
        if options.keep:
            sys.stdout.write(f"{keep(package, rows, options.keep, replace=options.replace)}\n")
    return 0


def _threads(asked: int) -> int:
    import torch

    if asked:
        torch.set_num_threads(asked)
    return torch.get_num_threads()


def _modules(options: argparse.Namespace, package: Package) -> Mapping[str, nn.Module] | None:
    """The networks behind the package's names, by component."""
    if options.module is None:
        return None
    from export.adapt.module import Adapted
    from export.assemble.prepare import unwrapped
    from export.importers.module_source import build_model
    from export.model import Network

    parts = build_model(options.module, options.path.absolute(), {}).parts()
    missing = [name for name in package.spec.components if name not in parts and not name.endswith("_vjp")]
    if missing:
        raise PackageError(
            Reason.BAD_SOURCE,
            options.module,
            f"it has no {missing[0]!r}",
            "Name the function that was exported",
        )
    return {
        name: Adapted(unwrapped(part.network.module).eval(), part.wiring).eval()
        for name, part in parts.items()
        if isinstance(part.network, Network)
    }
