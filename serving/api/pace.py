"""Large messages come in one after another, and no faster than the cores can spare them.

Reading, copying and parsing megabytes takes cores that the network's runs need. Where runs are on the CPU
and other calls are open, large messages share a fixed rate; their callers wait for the answer a little
longer, and everybody else's steps keep their time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

LARGE_BYTES = 1 << 20
BYTES_PER_CORE_S = 14 << 20  # docs/findings/large-messages.md


class Pace:
    """``bytes_per_s`` of large messages while others wait for answers; infinite: no limit."""

    def __init__(
        self,
        bytes_per_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._bytes_per_s, self._clock, self._sleep = bytes_per_s, clock, sleep
        self._next_s = 0.0  # when the next one may be read

    @classmethod
    def of(cls, device: str, cores: float) -> Pace:
        """Only where the network runs on the cores that read messages, too."""
        return cls(BYTES_PER_CORE_S * cores if device == "cpu" else math.inf)

    async def turn(self, size_bytes: int, alone: bool) -> None:
        """Wait until a message of this size may be read; at once where it is small or ``alone``."""
        if size_bytes < LARGE_BYTES or math.isinf(self._bytes_per_s):
            return
        now_s = self._clock()
        begin_s = max(now_s, self._next_s)
        self._next_s = begin_s + size_bytes / self._bytes_per_s
        if begin_s > now_s and not alone:
            await self._sleep(begin_s - now_s)
