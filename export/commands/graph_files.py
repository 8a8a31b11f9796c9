"""``pxserve-export onnx``, ``torchscript``, ``template``: packages from graph files and a specification."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from export.commands.target import add_stated, add_target, finished, labels, overrides, required
from export.package.errors import PackageError, Reason
from export.progress import Progress

if TYPE_CHECKING:
    from export.package.graphs import GraphInfo

ONNX_HELP = "export ONNX files with a specification; without one, print it to fill in"
TORCHSCRIPT_HELP = "export TorchScript files with a specification; without one, print it to fill in"
TEMPLATE_HELP = "print a specification to fill in"
KINDS = ("image", "vector", "tokens")
FAMILIES = ("autoregressive", "autoencoder", "vae", "gan", "diffusion")


def add_onnx(parser: argparse.ArgumentParser) -> None:
    """Flags of ``onnx``."""
    _add(parser, "onnx")


def add_torchscript(parser: argparse.ArgumentParser) -> None:
    """Flags of ``torchscript``."""
    _add(parser, "torchscript")


def add_template(parser: argparse.ArgumentParser) -> None:
    """Flags of ``template``."""
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--data", choices=KINDS, default="", help="kind of the data")
    parser.set_defaults(run=_template)


def _add(parser: argparse.ArgumentParser, kind: str) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE",
                        help="FILE; or NETWORK=FILE each: encoder=E.onnx decoder=D.onnx; "
                             "may be left out where the specification names them")  # fmt: skip
    parser.add_argument(
        "--spec", type=Path, metavar="YAML", help="what the model is; without it, a template is printed"
    )
    parser.add_argument("--family", choices=FAMILIES, help="of the template")
    parser.add_argument("--data", choices=KINDS, default="", help="kind of the data, of the template")
    parser.add_argument(
        "--levels", type=int, metavar="N", help="values of a pixel, where the specification is open"
    )
    parser.add_argument("--data-range", type=float, nargs=2, metavar=("LOW", "HIGH"),
                        help="what the networks see of the darkest and the brightest pixel")  # fmt: skip
    add_target(parser)
    add_stated(parser)
    parser.set_defaults(run=partial(_export, kind), vjp=False)


def _export(kind: str, options: argparse.Namespace) -> int:
    from export.importers.module_source import stated
    from export.importers.spec_file import read_specification
    from export.model import Graph

    named = [_named(text) for text in options.files]
    _check_kind(kind, [file for _, file in named])
    if options.spec is None:
        return _print_template(kind, options, named)
    family = _family(options.spec)
    files = {name or _main(family): file for name, file in named}
    given, model = read_specification(options.spec, overrides(options), files)
    _check_kind(
        kind, [part.network.file for part in model.parts().values() if isinstance(part.network, Graph)]
    )
    to, name = required(options, options.name or given)
    model = stated(model, labels=labels(options.labels), null=options.null_label)
    with Progress(f"export {name}") as progress:
        folder = model.export(to, name, version=options.version, replace=options.replace,
                              tolerance=options.tolerance, progress=progress)  # fmt: skip
    return finished(folder)


def _named(text: str) -> tuple[str, Path]:
    """NETWORK=FILE, or a FILE whose network is not named ("")."""
    from export.importers.lines import NETWORKS

    name, separator, file = text.partition("=")
    known = list(dict.fromkeys(name for names in NETWORKS.values() for name in names))
    if separator and name in known:
        return name, Path(file)
    if name.isidentifier() and separator and not Path(text).exists():
        raise PackageError(
            Reason.BAD_SPECIFICATION,
            "command line",
            f"no network is called {name!r}",
            f"Write {' | '.join(known)} before the '='",
        )
    return "", Path(text)


def _check_kind(kind: str, files: list[Path]) -> None:
    from export.assemble.files import kind_of

    for file in files:
        if kind_of(file) != kind:
            other = kind_of(file)
            raise PackageError(
                Reason.BAD_SOURCE, file, f"this is {other}, not {kind}", f"Run pxserve-export {other} {file}"
            )


def _family(spec: Path) -> str:
    from export.package.text import read_mapping

    return str(read_mapping(spec).get("family"))


def _main(family: str) -> str:
    """The network that a bare FILE is."""
    from export.importers.lines import NETWORKS, OPTIONAL_NETWORKS

    needed = [name for name in NETWORKS.get(family, ()) if name not in OPTIONAL_NETWORKS.get(family, ())]
    if len(needed) > 1:
        raise PackageError(
            Reason.BAD_SPECIFICATION,
            "command line",
            f"the family {family!r} has {len(needed)} networks, and it is not stated which one the file is",
            f"Write {' '.join(f'{name}=FILE' for name in needed)}",
        )
    return needed[0] if needed else "network"


def _print_template(kind: str, options: argparse.Namespace, named: list[tuple[str, Path]]) -> int:
    from export.importers.template import template

    written = " ".join(options.files) or "FILE"
    if options.family is None or not named:
        raise PackageError(
            Reason.BAD_SPECIFICATION,
            "command line",
            "no file says what the network means" if named else "no file is given",
            f"Add --spec model.yaml; to get one to fill in: pxserve-export {kind} {written} "
            f"--family {' | '.join(FAMILIES)} > model.yaml",
        )
    files = {name or _main(options.family): file for name, file in named}
    graphs = {name: _declared(kind, file) for name, file in files.items()}
    sys.stdout.write(template(options.family, files, graphs, options.data))
    sys.stderr.write(
        f"pxserve-export: a specification to fill in; then: pxserve-export {kind} {written} "
        "--spec model.yaml --to DIR\n"
    )
    return 0


def _declared(kind: str, file: Path) -> GraphInfo:
    """What the file says of its inputs and outputs."""
    from export.assemble.script_file import script_info
    from export.package.graphs import read_graph

    return read_graph(file) if kind == "onnx" else script_info(file)


def _template(options: argparse.Namespace) -> int:
    from export.importers.template import template

    sys.stdout.write(template(options.family, {}, {}, options.data))
    return 0
