"""The same request with the same seed gives the same bytes."""

from __future__ import annotations

from serving.selftest.bits import compared
from serving.selftest.check import Finding
from serving.selftest.subject import Subject

ROWS = 4


async def same_seed(subject: Subject) -> Finding:
    """Two equal requests, one after the other."""
    one, other = await subject.rows(ROWS, quick=True), await subject.rows(ROWS, quick=True)
    return compared(subject, one, other, "the same request, asked twice")
