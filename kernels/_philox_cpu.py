"""Philox 4x32-10 on CPU: compiled, or in NumPy by chunks that stay in cache; see :mod:`kernels.philox`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from kernels._compiled import LIBRARY
from kernels._elementary import cos_sin, log

ROUNDS: Final = 10
MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
KEY_INCREMENTS: Final = (0x9E3779B9, 0xBB67AE85)
UNIFORM_SCALE: Final = 4.6566127342e-10
SMALLEST_UNIFORM: Final = 1e-7

# The uint64 work arrays of a chunk stay in a 2 MiB second-level cache.
_CHUNK_COUNTERS: Final = 8_192
_MULTIPLIERS: Final = np.array(MULTIPLIERS, np.uint64).reshape(2, 1, 1)
_ROUND_INCREMENTS: Final = np.arange(ROUNDS, dtype=np.uint64) * np.array(KEY_INCREMENTS, np.uint64)[:, None]
_MASK: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)

Words = npt.NDArray[np.uint64]
Transform = Callable[[npt.NDArray[np.uint32]], npt.NDArray[np.float32] | npt.NDArray[np.int64]]


def counters_per_row(n: int) -> int:
    """Return Q, the counters that a row of ``n`` elements uses: ceil(n / 4) rounded up to a multiple of 8."""
    return (n + 31) // 32 * 8


def uniform_from_words(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """Map uint32 words to float32 uniforms in [0, 1), bit for bit as ``tl.random.uint_to_uniform_float``."""
    signed = words.view(np.int32)
    uniform = (signed ^ (signed >> np.int32(31))).astype(np.float32)
    uniform *= np.float32(UNIFORM_SCALE)
    return uniform


def normal_from_words(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """Map words [lines, 4, Q] to normals of the same shape."""
    radius = np.maximum(uniform_from_words(words[:, 0::2]), np.float32(SMALLEST_UNIFORM))
    radius = log(radius)
    radius *= np.float32(-2.0)
    np.sqrt(radius, out=radius)
    cosine, sine = cos_sin(uniform_from_words(words[:, 1::2]))
    normal = np.empty(words.shape, np.float32)
    np.multiply(radius, cosine, out=normal[:, 0::2])
    np.multiply(radius, sine, out=normal[:, 1::2])
    return normal


@dataclass(frozen=True)
class Lines:
    """Key and upper counter words of every line to draw, each uint64 [lines]."""

    key0: Words
    key1: Words
    c1: Words
    c2: Words
    c3: Words

    @staticmethod
    def of(seed: torch.Tensor, row: torch.Tensor, line: torch.Tensor, stream: torch.Tensor) -> Lines:
        """Take int64 [rows], and [rows] or [rows, steps] for ``line``."""
        steps = line.numel() // max(1, seed.numel())
        key, c3, c2 = (np.repeat(unsigned(tensor), steps) for tensor in (seed, row, stream))
        return Lines(key & _MASK, key >> _HALF, unsigned(line) & _MASK, c2 & _MASK, c3 & _MASK)

    @property
    def count(self) -> int:
        """How many lines."""
        return len(self.key0)

    def slice(self, first: int, end: int) -> tuple[Words, ...]:
        """Return the five arrays of some lines."""
        return tuple(array[first:end] for array in (self.key0, self.key1, self.c1, self.c2, self.c3))


def unsigned(tensor: torch.Tensor) -> Words:
    """View an int64 tensor as flat uint64 words."""
    return tensor.detach().to(torch.int64).contiguous().view(-1).numpy().view(np.uint64)


def _blocks(lines: Lines, n: int) -> Iterator[tuple[int, npt.NDArray[np.uint32]]]:
    """Yield (first line, words uint32 [lines, 4, counters]) in chunks that fit a cache."""
    counters = min(counters_per_row(n), n)  # a row shorter than Q uses only word 0 of its first n counters
    step = max(1, _CHUNK_COUNTERS // max(1, counters))
    for first in range(0, lines.count, step) if n else ():
        chunk = lines.slice(first, first + step)
        words = np.empty((len(chunk[0]), 4, counters), np.uint32)
        for begin in range(0, counters, _CHUNK_COUNTERS):
            index = np.arange(begin, min(begin + _CHUNK_COUNTERS, counters), dtype=np.uint64)
            _fill(words[:, :, begin : begin + len(index)], index, chunk)
        yield first, words


def _fill(out: npt.NDArray[np.uint32], index: Words, lines: tuple[Words, ...]) -> None:
    """Write the words of counters ``index`` for each line into ``out`` [lines, 4, counters]."""
    lines_inside = len(index) < len(lines[0])
    # The longer axis is the inner one: a NumPy inner loop of 8 elements would cost more than its arithmetic.
    if lines_inside:
        words = philox_rounds(index[:, None], *(array[None, :] for array in lines))
    else:
        words = philox_rounds(index[None, :], *(array[:, None] for array in lines))
    for lane, word in enumerate(words):
        out[:, lane] = word.T if lines_inside else word


def philox_rounds(
    c0: Words, key0: Words, key1: Words, c1: Words, c2: Words, c3: Words
) -> tuple[Words, Words, Words, Words]:
    """Run the ten rounds on 32-bit words in uint64 arrays; return the four words.

    ``c0`` broadcasts against the five others, which share one shape.
    """
    keys = _round_keys(key0, key1)
    multiplied, added = _first_two_rounds(c0, c1, c2, c3, keys)
    product = np.empty_like(multiplied)
    for round_index in range(2, ROUNDS):
        # multiplied = (c0, c2), added = (c1, c3): the round crosses the pair over, hence the reversed views.
        np.multiply(multiplied, _MULTIPLIERS, out=product)
        np.right_shift(product[::-1], _HALF, out=multiplied)
        np.bitwise_xor(multiplied, added, out=multiplied)
        np.bitwise_xor(multiplied, keys[:, round_index], out=multiplied)
        np.bitwise_and(product[::-1], _MASK, out=added)
    return multiplied[0], added[0], multiplied[1], added[1]


def _round_keys(key0: Words, key1: Words) -> Words:
    """Return the keys of every round, uint64 [2, ROUNDS, *key shape]."""
    first = np.stack((key0, key1))[:, None]
    return (first + _ROUND_INCREMENTS.reshape(2, ROUNDS, *(1,) * key0.ndim)) & _MASK


def _first_two_rounds(c0: Words, c1: Words, c2: Words, c3: Words, keys: Words) -> tuple[Words, Words]:
    """Return (c0, c2) and (c1, c3) after two rounds; half of their words are still constant along an axis."""
    low, high = _MULTIPLIERS[0], _MULTIPLIERS[1]
    product0, product2 = c0 * low, c2 * high
    c0, c2 = (product2 >> _HALF) ^ c1 ^ keys[0, 0], (product0 >> _HALF) ^ (c3 ^ keys[1, 0])
    c1, c3 = product2 & _MASK, product0 & _MASK
    product0, product2 = c0 * low, c2 * high
    multiplied, added = np.empty((2, *c2.shape), np.uint64), np.empty((2, *c2.shape), np.uint64)
    np.bitwise_xor(product2 >> _HALF, c1 ^ keys[0, 1], out=multiplied[0])
    np.bitwise_xor(c3, (product0 >> _HALF) ^ keys[1, 1], out=multiplied[1])
    np.bitwise_and(product2, _MASK, out=added[0])
    added[1] = product0 & _MASK
    return multiplied, added


def words_reference(
    seed: torch.Tensor, row: torch.Tensor, line: torch.Tensor, stream: torch.Tensor, n: int
) -> torch.Tensor:
    """:func:`kernels.philox.philox_words` on CPU."""
    if LIBRARY is not None:
        return _compiled(LIBRARY.pxserve_words, (seed, row, line, stream), n, torch.int64)
    return _draw(Lines.of(seed, row, line, stream), line, n, lambda words: words.astype(np.int64))


def uniform_reference(
    seed: torch.Tensor, row: torch.Tensor, line: torch.Tensor, stream: torch.Tensor, n: int
) -> torch.Tensor:
    """:func:`kernels.philox.philox_uniform` on CPU."""
    if LIBRARY is not None:
        return _compiled(LIBRARY.pxserve_uniforms, (seed, row, line, stream), n, torch.float32)
    return _draw(Lines.of(seed, row, line, stream), line, n, uniform_from_words)


def normal_reference(
    seed: torch.Tensor, row: torch.Tensor, line: torch.Tensor, stream: torch.Tensor, n: int
) -> torch.Tensor:
    """:func:`kernels.philox.philox_normal` on CPU."""
    if LIBRARY is not None:
        return _compiled(LIBRARY.pxserve_normals, (seed, row, line, stream), n, torch.float32)
    return _draw(Lines.of(seed, row, line, stream), line, n, normal_from_words)


def _draw(lines: Lines, line: torch.Tensor, n: int, transform: Transform) -> torch.Tensor:
    out = np.empty((lines.count, n), transform(np.empty((0, 4, 8), np.uint32)).dtype)
    for first, block in _blocks(lines, n):
        out[first : first + len(block)] = transform(block).reshape(len(block), -1)[:, :n]
    return torch.from_numpy(out.reshape(*line.shape, n))


def _compiled(
    function: Callable[..., None], lines: tuple[torch.Tensor, ...], n: int, dtype: torch.dtype
) -> torch.Tensor:
    seed, row, line, stream = (tensor.to(torch.int64).contiguous() for tensor in lines)
    out = torch.empty((*line.shape, n), dtype=dtype)
    steps = line.numel() // max(1, seed.numel())
    addresses = (tensor.data_ptr() for tensor in (seed, row, line, stream))
    function(*addresses, seed.numel(), steps, n, out.data_ptr())
    return out
