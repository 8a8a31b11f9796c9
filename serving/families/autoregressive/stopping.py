"""Where a row of variable length ends: an end symbol, a stop string, or its last position."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from serving.errors import invalid
from serving.families.autoregressive.symbols import Flags, Ids

MAX_STOPS = 4  # stop strings of a request
MAX_STOP_LENGTH = 64  # symbols of one
ANY = -1

Pieces = Callable[[int], bytes]  # a token's own bytes in the middle of a text


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


def stopped_text(tokens: list[int], table: Ids, pieces: Pieces) -> int:
    """Tokens at the end of ``tokens`` that a stop string made of bytes reaches into; 0: none ends there.

    ``table`` [MAX_STOPS, MAX_STOP_LENGTH]. Only strings that the last token completes count; the row ends
    before the token in which the first of them begins.
    """
    last = len(pieces(tokens[-1])) if tokens else 0
    ends, tail = _tail(tokens, pieces, MAX_STOP_LENGTH + last)
    begins = [
        found
        for line in table
        if (stop := bytes(line[line != ANY].astype(np.uint8)))
        and (found := tail.find(stop, max(0, len(tail) - last - len(stop) + 1))) >= 0
    ]
    return sum(end > min(begins) for end in ends) if begins else 0


def _tail(tokens: list[int], pieces: Pieces, enough: int) -> tuple[list[int], bytes]:
    """The last bytes of a text, at least ``enough`` where there are, and where each token ends in them."""
    parts: list[bytes] = []
    for token in reversed(tokens):
        parts.append(pieces(token))
        if sum(map(len, parts)) >= enough:
            break
    parts.reverse()
    return np.cumsum([len(part) for part in parts]).tolist(), b"".join(parts)
