"""Ten times a second, on the event loop: how late it is, whether all is well, and calls to be entered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from serving.telemetry.calls import CallMetrics
from serving.telemetry.metrics import Metrics
from serving.telemetry.table import ENGINE_ALIVE, EVENT_LOOP_LAG_SECONDS, READY

EVERY_S = 0.1


async def pulse(
    metrics: Metrics, calls: CallMetrics, ready: Callable[[], bool], alive: Callable[[], bool]
) -> None:
    """Until cancelled. Lag: how much later than asked the loop wakes, which is what every call waits."""
    lag, loop = metrics.histogram(EVENT_LOOP_LAG_SECONDS), asyncio.get_running_loop()
    while True:
        metrics.gauge(READY).set(ready())
        metrics.gauge(ENGINE_ALIVE).set(alive())
        calls.enter()
        due_s = loop.time() + EVERY_S
        await asyncio.sleep(EVERY_S)
        lag.observe(max(0.0, loop.time() - due_s))
