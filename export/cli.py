"""The command ``pxserve-export``: packages from sources, and checks of packages."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from export.commands import graph_files, module, tune, verify, zoo
from export.diffusers import command as diffusers
from export.package.errors import PackageError
from export.transformers import command as transformers

REFUSED, MISUSED = 1, 2

COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "module": (module.HELP, module.add),
    "onnx": (graph_files.ONNX_HELP, graph_files.add_onnx),
    "torchscript": (graph_files.TORCHSCRIPT_HELP, graph_files.add_torchscript),
    "template": (graph_files.TEMPLATE_HELP, graph_files.add_template),
    "diffusers": (diffusers.HELP, diffusers.add),
    "transformers": (transformers.HELP, transformers.add),
    "zoo": (zoo.HELP, zoo.add),
    "verify": (verify.HELP, verify.add),
    "tune": (tune.HELP, tune.add),
}


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
    for name, (help_text, add) in COMMANDS.items():
        add(commands.add_parser(name, help=help_text))
    return parser
