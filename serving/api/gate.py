"""How many calls are open, and whether more are let in."""

from __future__ import annotations

import asyncio
import sys

from serving.errors import ResourceExhausted, ServingError, Unavailable

RETRY_AFTER_S = 1.0


class Gate:
    """Counts calls in flight; refuses new ones beyond ``most``, and all of them once it is closed."""

    def __init__(self, most: int = sys.maxsize) -> None:
        self._most = most
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._refusal: ServingError | None = None

    @property
    def alone(self) -> bool:
        """Whether a call in flight is the only one."""
        return self._count <= 1

    def enter(self) -> None:
        """One more; raises as ``check``."""
        self.check()
        self._count += 1
        self._idle.clear()

    def check(self) -> None:
        """Raise what ``close`` was given, or ResourceExhausted, where no call may come in now."""
        if self._refusal is not None:
            raise self._refusal
        if self._count >= self._most:
            raise ResourceExhausted(
                f"{self._count} calls are open, as many as this server takes (--max-open-calls)",
                reason="TOO_MANY_CALLS",
                retry_after_s=RETRY_AFTER_S,
            )

    def leave(self) -> None:
        """One less."""
        self._count -= 1
        if not self._count:
            self._idle.set()

    def close(self, refusal: Unavailable) -> None:
        """Refuse calls from now on."""
        self._refusal = refusal

    async def idle(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight; false where that took longer."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True
