"""Who else asks at the same time changes no bit of an answer."""

from __future__ import annotations

import asyncio

from serving.selftest.bits import compared
from serving.selftest.check import Finding
from serving.selftest.subject import Subject

ROWS, NEIGHBOURS = 4, 3


async def batch_independence(subject: Subject) -> Finding:
    """A request alone, and beside others with other seeds and sizes."""
    alone = await subject.rows(ROWS, quick=True)
    others = (subject.rows(ROWS + k, quick=True, seed_offset=k) for k in range(1, NEIGHBOURS + 1))
    together = await asyncio.gather(subject.rows(ROWS, quick=True), *others)
    return compared(subject, alone, together[0], f"a request alone, and beside {NEIGHBOURS} others")
