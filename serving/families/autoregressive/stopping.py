"""Where a row of variable length ends: an end symbol, a stop string, or its last position."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serving.errors import invalid
from serving.families.autoregressive.symbols import Flags, Ids

MAX_STOPS = 4  # stop strings of a request
MAX_STOP_LENGTH = 64  # symbols of one
ANY = -1


def patterns(stop: tuple[str, ...]) -> Ids:
    """[MAX_STOPS, MAX_STOP_LENGTH] int64: UTF-8 bytes at the right end, ANY before them."""
    if len(stop) > MAX_STOPS:
        raise invalid("parameters.stop", f"at most {MAX_STOPS} strings")
    table = np.full((MAX_STOPS, MAX_STOP_LENGTH), ANY, np.int64)
    for line, text in zip(table, stop, strict=False):
        symbols = list(text.encode())
        if not 1 <= len(symbols) <= MAX_STOP_LENGTH:
            raise invalid("parameters.stop", f"each string needs 1 to {MAX_STOP_LENGTH} bytes")
        line[-len(symbols) :] = symbols
    return table


def pattern_lengths(table: NDArray[np.int64]) -> Ids:
    """Symbols of each pattern [..., MAX_STOPS]; 0: none."""
    return np.asarray((table != ANY).sum(axis=-1), np.int64)


def matched(tail: Ids, table: Ids, new: Ids) -> Ids:
    """Length of the longest stop pattern that each row's ``tail`` ends with; 0: none.

    ``tail`` [rows, MAX_STOP_LENGTH] last symbols, ``table`` [rows, MAX_STOPS, MAX_STOP_LENGTH];
    ``new`` [rows]: symbols since the prompt, which a pattern may not reach into.
    """
    lengths = pattern_lengths(table)
    equal: Flags = ((table == ANY) | (table == tail[:, None, :])).all(axis=-1)
    return np.asarray(np.where(equal & (lengths <= new[:, None]), lengths, 0).max(axis=1), np.int64)
