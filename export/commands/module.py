"""``pxserve-export module MODULE:FUNCTION``: a package from torch modules that the user's code builds."""

from __future__ import annotations

import argparse
from pathlib import Path

from export.commands.target import add_stated, add_target, finished, labels, required
from export.progress import Progress

HELP = "export torch modules: MODULE:FUNCTION returns a model of export.model"


def add(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.add_argument("source", metavar="MODULE:FUNCTION", help="for example mypackage.nets:build")
    parser.add_argument("--path", type=Path, default=Path(), metavar="DIR",
                        help="folder appended to the import path (default: this one)")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], type=_setting, metavar="KEY=VALUE",
                        help="a keyword argument of the function, as text; may be repeated")  # fmt: skip
    parser.add_argument("--format", choices=["onnx", "torchscript"], default="onnx", help="of the graphs")
    parser.add_argument("--precision", action="append", choices=["float32", "bfloat16"],
                        help="of the denoiser's, scorer's, generator's or VAE decoder's graph; repeat it for "
                             "several, servers take the first (default: float32)")  # fmt: skip
    parser.add_argument("--vjp", action="store_true",
                        help="also gradient graphs (flow likelihood, GAN completion, AIS)")  # fmt: skip
    add_target(parser)
    add_stated(parser)
    parser.set_defaults(run=_module)


def _setting(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _module(options: argparse.Namespace) -> int:
    from export.importers.module_source import build_model, stated

    to, name = required(options, options.name)
    model = stated(
        build_model(options.source, options.path.absolute(), dict(options.set)),
        license=options.license,
        description=options.description,
        labels=labels(options.labels),
        null=options.null_label,
    )
    with Progress(f"export {name}") as progress:
        folder = model.export(to, name, version=options.version, replace=options.replace,
        format=options.format,
                              precisions=tuple(dict.fromkeys(options.precision or ["float32"])),
                              vjp=options.vjp, tolerance=options.tolerance, progress=progress)  # fmt: skip
    return finished(folder)
