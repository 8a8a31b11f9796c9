"""The few largest logits of each row, without a sort of the vocabulary (CPU)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

_LARGEST_BLOCK: Final = 32
_BLOCKS_PER_CANDIDATE: Final = 8


@dataclass(frozen=True)
class Candidates:
    """Entries of each row in the order of their ids, [rows, width], padded with -inf and id 0."""

    value: Floats
    id: Integers


def largest(logits: Floats, count: int) -> Candidates:
    """Return at least the ``count`` largest entries of each row [rows, V], ties included, seldom many more.

    The count-th largest maximum of disjoint blocks is a lower bound of the count-th largest entry.
    """
    size = logits.shape[1]
    width = min(_LARGEST_BLOCK, size // (_BLOCKS_PER_CANDIDATE * max(1, count)))
    if width < 2:
        return Candidates(logits, np.broadcast_to(np.arange(size), logits.shape))
    maxima = _block_maxima(logits, width)
    last = maxima.shape[1] - count
    bound = np.partition(maxima, last, axis=1)[:, last]
    return _compact(logits, logits >= bound[:, None])


def _block_maxima(logits: Floats, width: int) -> Floats:
    rows, size = logits.shape
    whole = size // width * width
    maxima = logits[:, :whole].reshape(rows, width, -1).max(axis=1)
    return np.concatenate((maxima, logits[:, whole:]), axis=1)


def _compact(logits: Floats, chosen: npt.NDArray[np.bool_]) -> Candidates:
    flat = np.flatnonzero(chosen)
    row, token = np.divmod(flat, logits.shape[1])
    count = np.bincount(row, minlength=len(logits))
    column = np.arange(len(flat)) - np.repeat(np.cumsum(count) - count, count)
    value = np.full((len(logits), int(count.max(initial=1))), -np.inf, np.float32)
    identity = np.zeros(value.shape, np.int64)
    value[row, column] = logits.reshape(-1)[flat]
    identity[row, column] = token
    return Candidates(value, identity)
