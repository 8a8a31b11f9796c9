"""`make bench-gpu`: ceilings, kernels and whole loops on a CUDA machine with torch, triton and numpy alone.

Writes benchmarks-gpu.json and benchmarks-gpu.md. ``--dry-run`` shrinks everything and runs it on the CPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tests.benchmarks.gpu.comparisons import Data, comparisons, measure
from tests.benchmarks.gpu.loops import decoder_loops, unet_loops
from tests.benchmarks.gpu.report import Report, machine
from tests.benchmarks.gpu.timing import Clock, ceilings
from tests.benchmarks.networks.decoder import Decoder, Size
from tests.benchmarks.networks.unet import CIFAR10

_SMALL_UNET = (32, 32, 64, 64)
_SMALL_DECODER = Size(layers=2, heads=2, width=32, vocabulary=200, max_length=64)


class Budget:
    """What is left of the run's seconds; parts that would start after it are skipped, and said so."""

    def __init__(self, seconds: float, report: Report) -> None:
        self.end = time.monotonic() + seconds
        self.report = report

    def run(self, name: str, part: Callable[[], None]) -> None:
        """Run ``part``, unless time is up."""
        if time.monotonic() > self.end:
            self.report.skipped.append(f"{name}: out of time")
            return
        sys.stderr.write(f"{name}\n")
        part()


def run(device: torch.device, seconds: float, compiled: bool) -> Report:
    """Measure everything that fits into ``seconds``."""
    clock = Clock(device)
    report = Report(machine(device), dry_run=not clock.cuda)
    budget = Budget(seconds, report)
    ceiling = report.ceilings = ceilings(clock)
    for comparison in comparisons(Data(device)):
        budget.run(
            comparison.name,
            lambda one=comparison: report.kernels.append(measure(one, clock, ceiling, compiled)),  # type: ignore[misc]
        )
    steps, channels = (50, CIFAR10) if clock.cuda else (3, _SMALL_UNET)
    for rows in (1, 4, 16, 64) if clock.cuda else (1, 2):
        # Compiling costs half a minute per batch size: one size shows it.
        also = compiled and rows == 1
        budget.run(
            f"U-Net, {rows} rows",
            lambda n=rows, c=also: report.loops.extend(unet_loops(clock, n, steps, channels, c)),  # type: ignore[misc]
        )
    _decoder(clock, budget)
    return report


def _decoder(clock: Clock, budget: Budget) -> None:
    torch.manual_seed(0)
    dtype = torch.bfloat16 if clock.cuda else torch.float32
    network = Decoder(Size() if clock.cuda else _SMALL_DECODER).to(clock.device, dtype).eval()
    new, prompt = (128, 32) if clock.cuda else (6, 5)
    for rows in (1, 16, 64) if clock.cuda else (1, 3):
        budget.run(
            f"decoder, {rows} rows",
            lambda n=rows: budget.report.loops.extend(decoder_loops(clock, n, new, network, prompt)),  # type: ignore[misc]
        )


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="small, on the CPU, nothing measured")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for the two files")
    parser.add_argument("--seconds", type=float, default=420.0, help="start nothing after this")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args(arguments)
    if not options.dry_run and not torch.cuda.is_available():
        parser.error("needs CUDA; --dry-run runs small on the CPU")
    torch.set_float32_matmul_precision("high")
    device = torch.device("cpu" if options.dry_run else "cuda")
    report = run(device, options.seconds, not (options.no_compile or options.dry_run))
    report.write(options.out)
    sys.stdout.write(report.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
