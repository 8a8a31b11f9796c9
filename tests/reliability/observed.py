"""A serving process seen from outside: memory, files, threads, and what its metrics say."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from deploy.demo.server import Running

MIB = float(1 << 20)
WAIT_S = 20.0


@dataclass(frozen=True)
class Footprint:
    """What a server and its children hold."""

    memory_mib: float
    files: int
    threads: int
    processes: int


def footprint(running: Running) -> Footprint:
    """Resident memory (shared pages once per process), open files and threads, children included."""
    root = psutil.Process(running.process.pid)
    family = [root, *root.children(recursive=True)]
    return Footprint(
        sum(process.memory_info().rss for process in family) / MIB,
        sum(process.num_fds() for process in family),
        sum(process.num_threads() for process in family),
        len(family),
    )


def page(running: Running) -> str:
    """The text of /metrics."""
    with urllib.request.urlopen(f"http://{running.metrics}/metrics", timeout=10) as reply:
        text: str = reply.read().decode()
    return text


def metric(running: Running, name: str, **labels: str) -> float:
    """The sum of a metric over all of its series that bear these labels; 0 where there is none."""
    total = 0.0
    for series, value in re.findall(rf"^{name}(\{{.*\}})? (\S+)$", page(running), re.M):
        if all(f'{key}="{wanted}"' in series for key, wanted in labels.items()):
            total += float(value)
    return total


def held(running: Running) -> float:
    """Rows that the engine holds, and seconds of work that it knows of; 0 where nothing is left."""
    text = page(running)
    names = ("rows_active", "rows_queued", "backlog_seconds")
    return sum(
        float(v) for v in re.findall(rf"^pxserve_(?:{'|'.join(names)})(?:\{{.*\}})? (\S+)$", text, re.M)
    )


def await_true(holds: Callable[[], bool], within_s: float = WAIT_S) -> bool:
    """Whether it comes to hold in time."""
    until = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def assert_empty(running: Running, within_s: float = WAIT_S) -> None:
    """Nothing of any request is left in the engine."""
    assert await_true(lambda: held(running) == 0.0, within_s), f"the engine still holds {held(running)}"


def assert_no_leak(running: Running, before: Footprint, memory_mib: float) -> None:
    """Files and threads are back where they were, and memory within ``memory_mib``."""
    settled = await_true(lambda: footprint(running).files <= before.files + 2)
    now = footprint(running)
    assert settled, f"{now.files} open files, {before.files} before"
    assert now.threads <= before.threads + 4, f"{now.threads} threads, {before.threads} before"
    assert now.memory_mib <= before.memory_mib + memory_mib, (
        f"{now.memory_mib:.0f} MiB, {before.memory_mib:.0f} before"
    )
    assert now.processes == before.processes
