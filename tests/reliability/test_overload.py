"""At ten times its capacity a server answers as much as ever, refuses the rest at once, grows no more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from deploy.demo.server import Running, serving
from tests.reliability.load import Fate, capacity, open_loop
from tests.reliability.observed import assert_empty, assert_no_leak, footprint
from tests.reliability.record import Figure, Record

pytestmark = [pytest.mark.xdist_group("reliability"), pytest.mark.timeout(300)]

MODEL, ROWS, STEPS = "digits-diffusion", 8, 50
DEADLINE_S = 3.0
TIMES = 10.0
MEMORY_MIB = 150.0
LEAST_GOODPUT = (
    0.5  # of the capacity, in a few seconds on a machine that runs other tests; 0.9 where it is quiet
)
NEVER = {"INTERNAL", "UNKNOWN", "UNAVAILABLE"}


@dataclass(frozen=True)
class Overload:
    """What a load did; rates per second, memory in MiB above what the server had before."""

    capacity: float
    fates: list[Fate]
    seconds: float
    gained_mib: float

    @property
    def codes(self) -> Counter[str]:
        """Answers by status."""
        return Counter(fate.code.name for fate in self.fates)

    @property
    def goodput(self) -> float:
        """Answers in time per second, from when the queue is full to the end of the arrivals."""
        ends = [fate.sent_s + fate.took_s for fate in self.fates if fate.ok]
        return sum(DEADLINE_S <= end <= self.seconds for end in ends) / (self.seconds - DEADLINE_S)

    def refusal_s(self, percentile: float) -> float:
        """How long refusals took, as the client saw them."""
        refused = [fate.took_s for fate in self.fates if fate.code.name == "RESOURCE_EXHAUSTED"]
        return float(np.percentile(refused, percentile))


def overloaded(server: Running, measure_s: float, seconds: float) -> Overload:
    """Measure the capacity, then ask for ten times that."""
    alone = asyncio.run(capacity(server.target, MODEL, ROWS, STEPS, measure_s, at_once=16))
    before, done, peak = footprint(server), threading.Event(), [0.0]

    def watch() -> None:
        while not done.wait(0.2):
            peak[0] = max(peak[0], footprint(server).memory_mib)

    watching = threading.Thread(target=watch)
    watching.start()
    load = open_loop(server.target, MODEL, ROWS, STEPS, TIMES * alone, seconds, DEADLINE_S)
    fates = asyncio.run(load)
    done.set()
    watching.join()
    return Overload(alone, fates, seconds, peak[0] - before.memory_mib)


def test_a_short_overload_is_refused_in_part_and_harms_nothing(server: Running) -> None:
    before = footprint(server)
    seen = overloaded(server, measure_s=3.0, seconds=6.0)
    assert not NEVER & set(seen.codes)
    assert seen.codes["RESOURCE_EXHAUSTED"] > len(seen.fates) / 2
    assert seen.refusal_s(50) < 0.05
    assert seen.gained_mib < MEMORY_MIB
    assert_empty(server)
    after = asyncio.run(capacity(server.target, MODEL, ROWS, STEPS, 2.0, at_once=16))
    assert seen.goodput > LEAST_GOODPUT * min(seen.capacity, after)
    assert_no_leak(server, before, MEMORY_MIB)


@pytest.fixture
def spared(repository: Path, tmp_path: Path) -> Iterator[Running]:
    """A server whose networks leave a core to whoever refuses and whoever asks, as a GPU does."""
    flags = ("--engine", "process", "--log-level", "warning", "--threads", "1")
    with serving(repository, log=tmp_path / "server.log", flags=flags) as running:
        yield running


@pytest.mark.reliability
@pytest.mark.timeout(600)
def test_ten_times_the_capacity(server: Running, spared: Running, record: Record) -> None:
    asyncio.run(capacity(spared.target, MODEL, ROWS, STEPS, 5.0, at_once=16))
    before = footprint(spared)
    seen = overloaded(spared, measure_s=10.0, seconds=40.0)
    assert_empty(spared)
    assert_no_leak(spared, before, MEMORY_MIB)
    time.sleep(0.5)
    after = asyncio.run(capacity(spared.target, MODEL, ROWS, STEPS, 6.0, at_once=16))
    shared = overloaded(server, measure_s=10.0, seconds=20.0)
    admitted = len(seen.fates) - seen.codes["RESOURCE_EXHAUSTED"]
    record(
        "Overload at ten times the capacity",
        [
            Figure("capacity, measured first", seen.capacity, "requests/s"),
            Figure("requests sent", len(seen.fates)),
            Figure("answered in time over the capacity", seen.goodput / seen.capacity, "", 0.9),
            Figure("admitted requests that were in time", seen.codes["OK"] / admitted),
            Figure("refusal, median", seen.refusal_s(50) * 1e3, "ms", 50, "at most"),
            Figure("refusal, 99th percentile", seen.refusal_s(99) * 1e3, "ms", 50, "at most"),
            Figure("memory gained at most", seen.gained_mib, "MiB", MEMORY_MIB, "at most"),
            Figure("INTERNAL, UNKNOWN, UNAVAILABLE", sum(seen.codes[c] for c in NEVER), "", 0, "at most"),
            Figure("capacity right afterwards over before", after / seen.capacity, "", 0.9),
            Figure("networks on both cores: capacity", shared.capacity, "requests/s"),
            Figure("networks on both cores: answered in time over it", shared.goodput / shared.capacity),
        ],
        f"{MODEL}, {ROWS} rows of {STEPS} steps a request, a deadline of {DEADLINE_S:g} s, Poisson arrivals "
        "for 40 s; latencies as the client sees them; engine in its own process, its networks on one core, "
        "and the client with the front end on the other. Where the networks take both cores, refusing and "
        "asking take their share of what the capacity was measured with. "
        + ", ".join(f"{count} {code}" for code, count in seen.codes.most_common())
        + ".",
    )
