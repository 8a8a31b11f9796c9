"""``pxserve-export diffusers DIR``."""

from __future__ import annotations

import argparse
from pathlib import Path

from export.commands.target import add_stated, add_target, finished, labels
from export.package.errors import PackageError, Reason
from export.progress import Progress

HELP = "export a folder that diffusers saved: a pipeline, or a network and its scheduler"


def add(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.add_argument("source", type=Path, metavar="DIR", help="a folder that save_pretrained wrote")
    parser.add_argument(
        "--scheduler", type=Path, metavar="DIR", help="its scheduler, where it lies elsewhere"
    )
    parser.add_argument("--vae", type=Path, metavar="DIR", help="the AutoencoderKL whose latents it denoises")
    parser.add_argument("--variant", metavar="NAME", help="of the weights' files, such as fp16")
    add_target(parser)
    add_stated(parser)
    parser.add_argument("--no-null-label", action="store_true", help="no class id means 'none given'")
    parser.add_argument(
        "--levels", type=int, metavar="N", help="values of a pixel: 256 for 8-bit images, 0 for real numbers"
    )
    parser.add_argument("--data-range", type=float, nargs=2, metavar=("LOW", "HIGH"),
                        help="what the network sees of the darkest and the brightest pixel")  # fmt: skip
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of what is denoised")
    parser.add_argument(
        "--image-condition", metavar="NAME", help="what the channels beside the noisy ones are called"
    )
    parser.add_argument(
        "--sequence-length", type=int, metavar="N", help="of hidden states, without a text encoder"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="of requests that name none")
    parser.add_argument(
        "--precision",
        action="append",
        choices=["float32", "bfloat16"],
        help="of the denoiser's graph; repeat it for several, servers take the first (default: float32)",
    )
    parser.add_argument("--vjp", action="store_true", help="also a gradient graph (flow likelihood)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Export, and tell what was written and how exact it is."""
    from export.diffusers.build import build
    from export.diffusers.wish import Wish

    if options.to is None:
        raise PackageError(
            Reason.BAD_SPECIFICATION, "command line", "where the package goes is not stated", "Add --to DIR"
        )
    wish = Wish(
        to=options.to,
        name=options.name,
        version=options.version,
        replace=options.replace,
        license=options.license or None,
        description=options.description,
        labels=tuple(labels(options.labels)),
        null_label=options.null_label,
        no_null=options.no_null_label,
        levels=options.levels,
        data_range=tuple(options.data_range) if options.data_range else None,
        size=tuple(options.size) if options.size else None,
        image_condition=options.image_condition,
        sequence_length=options.sequence_length,
        steps=options.steps,
        scheduler=options.scheduler,
        autoencoder=options.vae,
        variant=options.variant,
        precisions=tuple(dict.fromkeys(options.precision or ["float32"])),
        vjp=options.vjp,
        tolerance=options.tolerance,
    )
    with Progress("export") as progress:
        folder = build(options.source, wish, progress)
    return finished(folder)
