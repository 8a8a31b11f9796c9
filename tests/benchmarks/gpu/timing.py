"""Times on the device's own clock, with a flushed second-level cache, and the ceilings to compare with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Call = Callable[[], object]
_FLUSH_BYTES = 256 * 2**20


@dataclass
class Clock:
    """Median microseconds of a call; on CPU (a dry run) each call is timed once, to show that it runs."""

    device: torch.device
    repeats: int = 30

    def __post_init__(self) -> None:
        self.cuda = self.device.type == "cuda"
        size = _FLUSH_BYTES if self.cuda else 1
        self.flush = torch.empty(size, dtype=torch.int8, device=self.device)

    def microseconds(self, call: Call, repeats: int | None = None) -> float:
        """Median over ``repeats``, each after the cache was overwritten."""
        if not self.cuda:
            begin = time.perf_counter()
            call()
            return 1e6 * (time.perf_counter() - begin)
        for _ in range(3):
            call()
        pairs = [self._once(call) for _ in range(repeats or self.repeats)]
        torch.cuda.synchronize(self.device)
        return float(statistics.median(1e3 * begin.elapsed_time(end) for begin, end in pairs))

    def _once(self, call: Call) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        self.flush.zero_()
        begin.record()
        call()
        end.record()
        return begin, end

    def seconds(self, call: Call, repeats: int = 3) -> float:
        """Median wall time to completion; for whole loops, whose host time counts too."""
        times = []
        for _ in range(1 + repeats if self.cuda else 1):
            self.wait()
            begin = time.perf_counter()
            call()
            self.wait()
            times.append(time.perf_counter() - begin)
        return statistics.median(times[1:] or times)

    def wait(self) -> None:
        """Until the device is idle."""
        if self.cuda:
            torch.cuda.synchronize(self.device)


def copy_microseconds(clock: Clock, moved_bytes: int) -> float:
    """Time of a copy that reads and writes ``moved_bytes`` in all."""
    source = torch.zeros(max(16, moved_bytes // 2 // 16 * 16), dtype=torch.int8, device=clock.device)
    target = torch.empty_like(source)
    return clock.microseconds(lambda: target.copy_(source))


@dataclass(frozen=True)
class Ceilings:
    """Copy bandwidth (read and write) in bytes/s and matrix product in operations/s, as measured."""

    copy_bytes_per_s: float
    matmul_per_s: float


def ceilings(clock: Clock) -> Ceilings:
    """Of a 2 GiB copy and an 8,192-cubed bfloat16 product (small ones on CPU)."""
    moved, width = (2 * 2**30, 8192) if clock.cuda else (2**20, 64)
    copied = copy_microseconds(clock, moved)
    a = torch.ones(width, width, dtype=torch.bfloat16, device=clock.device)
    product = clock.microseconds(lambda: a @ a)
    return Ceilings(moved / copied * 1e6, 2 * width**3 / product * 1e6)
