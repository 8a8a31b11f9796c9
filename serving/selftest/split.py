"""Row i does not depend on how many rows were asked for, nor on where the request began."""

from __future__ import annotations

from serving.selftest.bits import compared
from serving.selftest.check import Finding, Verdict
from serving.selftest.subject import Subject

ROWS = 6


async def split(subject: Subject) -> Finding:
    """n rows against the same rows in two requests."""
    whole = await subject.rows(ROWS, quick=True)
    head = await subject.rows(2, quick=True)
    found = compared(subject, whole[slice(0, 2)], head, f"rows 0 and 1 of n = {ROWS}, and of n = 2")
    if found.verdict is not Verdict.PASS:
        return found
    tail = await subject.rows(ROWS - 2, 2, quick=True)
    return compared(subject, whole[slice(2, ROWS)], tail, f"n = {ROWS} rows, and the same in two requests")
