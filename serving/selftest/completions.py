"""What every way of completing rows must keep, and must not read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from serving.families.capability import Method
from serving.families.request import Array, Operation, Request
from serving.families.result import Completed
from serving.selftest.check import Finding, judged, not_applicable
from serving.selftest.subject import Rows, Subject, cheap_seconds, cheaper

AFFORDABLE_S = 1.0  # per row: dearer methods are left out
ROWS = 2


async def given_entries(subject: Subject) -> Finding:
    """Observed entries come back bit for bit, by every affordable method."""
    changed, names = 0, []
    async for method, request in _requests(subject):
        data = await _completed(subject, request)
        assert request.observed is not None
        assert request.data is not None
        names.append(method.name)
        changed += _changed(data, request.data, request.observed)
    return _of_methods(changed, names, "observed entries that a completion changed")


async def unobserved_entries(subject: Subject) -> Finding:
    """What the mask hides is never read: other values there change no bit."""
    read, names = 0, []
    async for method, request in _requests(subject):
        assert request.observed is not None
        assert request.data is not None
        other = np.where(request.observed, request.data, _reversed(subject, request.data))
        one = await _completed(subject, request)
        two = await _completed(subject, replace(request, data=other))
        width = min(one.shape[2], two.shape[2])
        names.append(method.name)
        read += int((one[:, :, :width] != two[:, :, :width]).sum())
    if not subject.bitwise and read:
        return not_applicable("this package is of class TOLERANCE here: equal requests may differ in bits")
    return _of_methods(read, names, "entries of a completion that changed with what the mask hides")


def halves(rows: Rows) -> NDArray[np.bool_]:
    """The first half of every row is known [rows, *shape]: of images the upper one, in all channels."""
    if rows.data.ndim == 4:
        upper = np.arange(rows.data.shape[2]) < rows.data.shape[2] // 2
        return np.broadcast_to(upper[:, None], rows.data.shape).copy()
    known = np.zeros((len(rows), rows.data[0].size), np.bool_)
    known[:, : known.shape[1] // 2] = True
    return known.reshape(rows.data.shape)


async def _requests(subject: Subject) -> AsyncIterator[tuple[Method, Request]]:
    rows = await subject.rows(ROWS, quick=True)
    for method in subject.capability(Operation.INPAINT).methods:
        if cheap_seconds(method) > AFFORDABLE_S or (rows.data.shape[1] < 2 and rows.data[0].size < 2):
            continue
        request = subject.request(Operation.INPAINT, method, len(rows))
        given = replace(
            request, data=rows.data, lengths=rows.lengths, observed=_scattered(subject, rows, method)
        )
        yield method, replace(given, parameters=cheaper(request.parameters))


def _scattered(subject: Subject, rows: Rows, method: Method) -> NDArray[np.bool_]:
    """Half of each row, and all but two entries where every completion is enumerated."""
    known = halves(rows)
    if method.name == "enumerate":
        flat = np.ones((len(rows), rows.data[0].size), np.bool_)
        flat[:, :1] = False
        known = flat.reshape(rows.data.shape)
    return known


async def _completed(subject: Subject, request: Request) -> Array:
    result = await subject.ask(request)
    assert isinstance(result, Completed)
    return result.data


def _reversed(subject: Subject, data: Array) -> Array:
    """Other values of the data space at every entry."""
    levels = subject.spec.data.levels
    if levels:
        return ((data.astype(np.int64) + levels // 2) % levels).astype(data.dtype)
    return (-data.astype(np.float64) - 1.0).astype(data.dtype)


def _changed(data: Array, given: Array, observed: NDArray[np.bool_]) -> int:
    width = min(data.shape[2], given.shape[1])
    wrong = data[:, :, :width] != given[:, None, :width]
    return int((wrong & observed[:, None, :width]).sum())


def _of_methods(count: int, names: list[str], what: str) -> Finding:
    if not names:
        return not_applicable("no completion method answers within the time of a self-test")
    return judged(count == 0, float(count), f"{what} ({', '.join(names)})")
