"""How long threads were ready to run and got no core: neighbours on the machine, or a container's quota."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from serving.telemetry.table import CPU_WAIT_SECONDS_TOTAL

PROC = Path("/proc")
Pid = Callable[[], int | None]


class CpuWait(Collector):
    """Linux' own account (``/proc/PID/task/*/schedstat``), summed over the threads of each process.

    Threads that have ended keep what they waited. Nothing where the kernel does not tell.
    """

    def __init__(self, processes: Mapping[str, Pid] | None = None, proc: Path = PROC) -> None:
        self.processes: dict[str, Pid] = dict(processes or {"server": os.getpid})
        self._proc = proc
        self._ended_s: dict[str, float] = {}
        self._last: dict[str, dict[str, float]] = {}

    def describe(self) -> list[CounterMetricFamily]:
        """Name and type, without values."""
        return [self._family()]

    def collect(self) -> Iterator[CounterMetricFamily]:
        """What a scrape shows."""
        family = self._family()
        for name, pid in self.processes.items():
            threads = self._threads(pid())
            if threads:
                family.add_metric((name,), self._total(name, threads))
        yield family

    def _total(self, name: str, threads: dict[str, float]) -> float:
        gone = [waited for key, waited in self._last.get(name, {}).items() if key not in threads]
        self._ended_s[name] = self._ended_s.get(name, 0.0) + sum(gone)
        self._last[name] = threads
        return self._ended_s[name] + sum(threads.values())

    def _threads(self, pid: int | None) -> dict[str, float]:
        """Seconds waited, by thread."""
        found: dict[str, float] = {}
        for task in (self._proc / str(pid) / "task").glob("[0-9]*"):
            try:
                found[task.name] = int((task / "schedstat").read_text().split()[1]) / 1e9
            except (OSError, ValueError, IndexError):  # it has just ended, or the kernel keeps no account
                continue
        return found

    @staticmethod
    def _family() -> CounterMetricFamily:
        metric = CPU_WAIT_SECONDS_TOTAL
        return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
