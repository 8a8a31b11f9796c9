"""``pxserve-export transformers DIR``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from export.progress import Progress

HELP = "export a folder that transformers saved"


def add(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument("source", type=Path, metavar="DIR", help="a folder that save_pretrained wrote")
    parser.add_argument(
        "--to", type=Path, metavar="DIR", required=True, help="the repository: to DIR/NAME/VERSION"
    )
    parser.add_argument("--name", help="of the model (default: the folder's)")
    parser.add_argument("--version", type=int, default=1, help="a new integer (default: 1)")
    parser.add_argument("--replace", action="store_true", help="replace this version where it exists")
    parser.add_argument("--license", help="of the weights (default: as the folder's README.md says)")
    parser.add_argument("--description", help="one line for users")
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="tokens of a row, at most; caches have this size"
    )
    parser.add_argument("--begin-token", type=int, metavar="ID", help="the token before every row")
    parser.add_argument(
        "--precision",
        action="append",
        choices=["float32", "float16", "bfloat16"],
        help="repeat it for several graphs; servers take the first that their device runs (default: float32)",
    )
    parser.add_argument(
        "--weights",
        action="append",
        choices=["int8", "int4"],
        help="a graph with matrices in 8 or 4 bits, the first choice on CPUs unless --precision is given too",
    )
    parser.add_argument(
        "--block",
        type=int,
        choices=[16, 32, 64, 128],
        help="inputs of one scale (default: 64 with int8, 32 with int4)",
    )
    parser.add_argument(
        "--torchscript",
        choices=["float32", "float16", "bfloat16"],
        help="also a TorchScript graph for CUDA, whose decoding steps are captured in CUDA graphs",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Export, and print what was written and how exact it is."""
    from export.transformers.build import Wish, build

    graphs = (*(options.precision or ()), *(options.weights or ())) or ("float32",)
    wish = Wish(
        options.to,
        options.name,
        options.version,
        options.license,
        options.description,
        options.max_length,
        options.begin_token,
        tuple(dict.fromkeys(graphs)),
        options.block,
        options.replace,
        options.torchscript,
    )
    with Progress("export") as progress:
        written = build(options.source, wish, progress)
    _report(written)
    return 0


def _report(folder: Path) -> None:
    """The package, its first symbol and its length, and each graph's error."""
    from export.package.read import read_package

    spec = read_package(folder).spec
    section, decoder = spec.autoregressive, spec.components["decoder"]
    assert section is not None
    lines = [
        f"{folder}",
        f"  rows of up to {spec.data.elements} symbols after symbol {section.begin_symbol}"
        f" ({spec.provenance['begin_symbol']}); ended by {list(section.end_symbols) or 'nothing'}",
    ]
    parities = [spec.parity, *(variant.parity for variant in decoder.variants)]
    for graph, parity in zip(decoder.graphs, parities, strict=True):
        assert parity is not None
        lines.append(
            f"  {graph.file}: {graph.kind}; largest logit error {parity.max_abs_error:.2g}, log p off by"
            f" {parity.log_prob_error:.2g} nats per symbol; rows alone and in batches"
            f" {'the same bits' if parity.batch_invariant else 'differ in the last bits'}"
        )
    sys.stdout.writelines(f"{line}\n" for line in lines)
