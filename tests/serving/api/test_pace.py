"""Large messages are paced while others wait; small ones, and one that is alone, never."""

from __future__ import annotations

import asyncio
import math

from serving.api.pace import BYTES_PER_CORE_S, LARGE_BYTES, Pace


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def pace(bytes_per_s: float) -> tuple[Pace, Clock]:
    clock = Clock()
    return Pace(bytes_per_s, clock, clock.sleep), clock


def test_large_messages_share_the_rate() -> None:
    paced, clock = pace(2.0 * LARGE_BYTES)
    for _ in range(5):
        asyncio.run(paced.turn(LARGE_BYTES, alone=False))
    assert clock.slept == [0.5] * 4


def test_small_messages_and_one_that_is_alone_do_not_wait() -> None:
    paced, clock = pace(1.0)
    for _ in range(5):
        asyncio.run(paced.turn(LARGE_BYTES - 1, alone=False))
        asyncio.run(paced.turn(LARGE_BYTES, alone=True))
    assert clock.slept == []


def test_time_in_which_nothing_came_is_not_saved() -> None:
    paced, clock = pace(float(LARGE_BYTES))
    asyncio.run(paced.turn(LARGE_BYTES, alone=False))
    clock.now_s += 60.0
    asyncio.run(paced.turn(LARGE_BYTES, alone=False))
    asyncio.run(paced.turn(LARGE_BYTES, alone=False))
    assert clock.slept == [1.0]


def test_the_rate_grows_with_the_cores_and_gpus_need_none() -> None:
    assert Pace.of("cpu", 4.0)._bytes_per_s == 4.0 * BYTES_PER_CORE_S
    assert math.isinf(Pace.of("cuda:0", 4.0)._bytes_per_s)
