"""Encode, then Decode: is the error what the server says, and does a row find back to itself?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from serving.families.capability import Method
from serving.families.request import Array, Operation
from serving.families.result import Decoded, Encoded
from serving.selftest.check import Finding, judged, not_applicable
from serving.selftest.subject import Rows, Subject

ROWS = 4
AFFORDABLE_S = 2.0
SLACK = 0.02  # of the declared error: rounding to levels, and rounding of the networks


async def round_trip_error(subject: Subject) -> Finding:
    """The error that Encode reports is the one that Decode shows."""
    encoder, decoder = _methods(subject)
    if encoder is None or decoder is None or all(p.name != "round_trip" for p in encoder.parameters):
        return not_applicable("Encode and Decode are not both affordable, or Encode declares no error")
    rows = await subject.rows(ROWS)
    encoded = await subject.about(Operation.ENCODE, encoder, rows, {"round_trip": True})
    assert isinstance(encoded, Encoded)
    if encoded.round_trip_error is None:
        return judged(False, 0.0, "Encode was asked for its round-trip error and reported none")
    measured = _rms(await _decoded(subject, decoder, encoded), rows.data)
    gap = float(np.abs(measured - encoded.round_trip_error).max())
    detail = f"declared against measured rms of decode(encode(x)) - x, which is {measured.mean():.3g}"
    return judged(bool(gap <= SLACK * (_spread(rows) + measured.max())), gap, detail)


async def round_trip(subject: Subject) -> Finding:
    """decode(encode(x)) is nearer to x than to another row; a model may be too poor for that."""
    encoder, decoder = _methods(subject)
    if encoder is None or decoder is None:
        return not_applicable("Encode and Decode are not both affordable for this model")
    rows = await subject.rows(ROWS)
    encoded = await subject.about(Operation.ENCODE, encoder, rows)
    assert isinstance(encoded, Encoded)
    back = await _decoded(subject, decoder, encoded)
    error, apart = _rms(back, rows.data).mean(), _rms(back, np.roll(rows.data, 1, axis=0)).mean()
    detail = (
        f"rms of decode(encode(x)) - x; to the next row it is {apart:.3g}, and a code that kept x is nearer"
    )
    return judged(bool(error < apart or apart == 0.0), float(error), detail)


def _methods(subject: Subject) -> tuple[Method | None, Method | None]:
    found = [subject.method(operation) for operation in (Operation.ENCODE, Operation.DECODE)]
    encoder, decoder = (m if m is not None and m.row_seconds <= AFFORDABLE_S else None for m in found)
    return encoder, decoder


async def _decoded(subject: Subject, decoder: Method, encoded: Encoded) -> Array:
    request = subject.request(Operation.DECODE, decoder, len(encoded.latents))
    result = await subject.ask(replace(request, latents=encoded.latents))
    assert isinstance(result, Decoded)
    return result.data


def _rms(one: Array, other: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    gap = one.astype(np.float64) - other.astype(np.float64)
    return np.asarray(np.sqrt(np.square(gap).reshape(len(gap), -1).mean(axis=1)), np.float64)


def _spread(rows: Rows) -> float:
    return float(rows.data.astype(np.float64).std())
