"""``make bench``: run the benchmarks, print each figure, write docs/benchmarks.md and its JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from tests.benchmarks import (
    backlog,
    fairness,
    gpt2,
    mixed,
    overload,
    peers,
    throughput,
    ticks,
    watching,
    wire,
)
from tests.benchmarks.figures import Figure, write
from tests.benchmarks.large import large_package

PAGE = Path("docs/benchmarks.md")
DATA = Path("docs/benchmarks.json")

BENCHMARKS: dict[str, Callable[[], list[Figure]]] = {
    "throughput": lambda: throughput.run(large_package()),
    "ticks": ticks.run,
    "mixed": mixed.run,
    "fairness": lambda: fairness.run(large_package()),
    "backlog": lambda: backlog.run(large_package()),
    "overload": overload.run,
    "wire": wire.run,
    "watching": watching.run,
    "gpt2": gpt2.run,
    "diffusers": lambda: _diffusers("run"),
    "diffusers-vjp": lambda: _diffusers("run_vjp"),
    "peers": peers.run,
}


def _diffusers(name: str) -> list[Figure]:
    """Imported when it runs: the library takes seconds, which others need not wait for."""
    figures: list[Figure] = getattr(import_module("tests.benchmarks.diffusers_peer"), name)()
    return figures


def main() -> int:
    """Run all benchmarks, or those named."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], help="default: all")
    parser.add_argument("--dry", action="store_true", help="print only, write nothing")
    flags = parser.parse_args()
    figures: list[Figure] = []
    for name in flags.names or BENCHMARKS:
        for figure in BENCHMARKS[name]():
            sys.stdout.write(f"{name}: {figure.name}: {figure.value:.4g} {figure.unit} ({figure.met})\n")
            sys.stdout.flush()
            figures.append(figure)
    if not flags.dry:
        write(figures, PAGE, DATA)
    return 0


if __name__ == "__main__":
    sys.exit(main())
