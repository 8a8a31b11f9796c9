"""Counter-based Philox 4x32-10 noise: a pure function of the request, never of the batch.

Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011). Layout: the key is the seed, 64 bit,
low word first; the counter is (c0 element counter, c1 plan line, c2 stream word, c3 row), where the stream
word is ``stream + 16 * particle`` and the row is ``first_row + i``. A row of n elements uses Q = ceil(n / 4)
rounded up to 8 counters; element e is word e // Q of counter e % Q. Uniforms are Triton's
``uint_to_uniform_float`` (31 bits, [0, 1)). Normals are Box-Muller: words (0, 1) give cos and sin as lanes 0
and 1, words (2, 3) as lanes 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import torch

from kernels._triton import jit

if TYPE_CHECKING:
    import triton.language as tl

STREAM_INITIAL: Final = 0
STREAM_STEP: Final = 1
STREAM_RENOISE: Final = 2
STREAM_TOKEN: Final = 3
STREAM_LATENT: Final = 4
STREAM_PROBE: Final = 5
STREAM_RESAMPLE: Final = 6
STREAMS_PER_PARTICLE: Final = 16

ROUNDS: Final = 10
MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
KEY_INCREMENTS: Final = (0x9E3779B9, 0xBB67AE85)
UNIFORM_SCALE: Final = 4.6566127342e-10
SMALLEST_UNIFORM: Final = 1e-7
TWO_PI: Final = 6.283185307179586

# The uint64 work arrays of a chunk stay in a 2 MiB second-level cache.
_CHUNK_COUNTERS: Final = 8_192
_MULTIPLIERS: Final = np.array(MULTIPLIERS, np.uint64).reshape(2, 1, 1)
_ROUND_INCREMENTS: Final = np.arange(ROUNDS, dtype=np.uint64) * np.array(KEY_INCREMENTS, np.uint64)[:, None]
_MASK: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)

_Array = npt.NDArray[np.uint64]
_Transform = Callable[[npt.NDArray[np.uint32]], npt.NDArray[np.float32]]


def counters_per_row(n: int) -> int:
    """Return Q, the counters that a row of ``n`` elements uses: ceil(n / 4) rounded up to a multiple of 8."""
    return (n + 31) // 32 * 8


def philox_words(
    seed: torch.Tensor, row: torch.Tensor, line: torch.Tensor, stream: torch.Tensor | int, n: int
) -> torch.Tensor:
    """Return the raw 32-bit words of every row.

    ``seed`` and ``row`` are int64 [rows]; ``line`` is int64 [rows], or [rows, steps] to draw several plan
    lines at once; ``stream`` is an int, or int64 [rows]. Returns int64 in [0, 2**32), [rows, n] or
    [rows, steps, n].
    """
    lines = _Lines.of(seed, row, line, stream)
    words = np.empty((lines.count, n), np.int64)
    for first, block in _blocks(lines, n):
        words[first : first + len(block)] = block.reshape(len(block), -1)[:, :n]
    return torch.from_numpy(words.reshape(*line.shape, n)).to(seed.device)


def philox_uniform(
    seed: torch.Tensor, row: torch.Tensor, line: torch.Tensor, stream: torch.Tensor | int, n: int
) -> torch.Tensor:
    """Return float32 uniforms in [0, 1), zero possible; arguments and shapes as in :func:`philox_words`."""
    return _draw(seed, row, line, stream, n, uniform_from_words)


def philox_normal(
    seed: torch.Tensor, row: torch.Tensor, line: torch.Tensor, stream: torch.Tensor | int, n: int
) -> torch.Tensor:
    """Return float32 unit normals, |z| <= 5.678; arguments and shapes as in :func:`philox_words`."""
    return _draw(seed, row, line, stream, n, _normal_from_words)


def philox_uniform_at(
    seed: torch.Tensor,
    row: torch.Tensor,
    line: torch.Tensor,
    stream: torch.Tensor,
    n: int,
    element: torch.Tensor,
) -> torch.Tensor:
    """Return float32 [draws]: element ``element`` of :func:`philox_uniform` for each draw, without its row.

    All tensors are int64 [draws].
    """
    lines, index = _Lines.of(seed, row, line, stream), _unsigned(element)
    counters = np.uint64(counters_per_row(n))
    words = philox_rounds((index % counters)[None], *(array[None] for array in lines.slice(0, lines.count)))
    word = np.choose((index // counters).astype(np.int64), [lane[0] for lane in words])
    return torch.from_numpy(uniform_from_words(word.astype(np.uint32))).to(seed.device)


def uniform_from_words(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """Map uint32 words to float32 uniforms in [0, 1), bit for bit as ``tl.random.uint_to_uniform_float``."""
    signed = words.view(np.int32)
    uniform = (signed ^ (signed >> np.int32(31))).astype(np.float32)
    uniform *= np.float32(UNIFORM_SCALE)
    return uniform


def _normal_from_words(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """Map words [lines, 4, Q] to normals of the same shape.

    log, cos and sin see one contiguous array whose size is a multiple of 16, so that no element falls into a
    SIMD remainder loop with other last bits, wherever its row lies in the batch.
    """
    radius = uniform_from_words(np.ascontiguousarray(words[:, 0::2]))
    angle = uniform_from_words(np.ascontiguousarray(words[:, 1::2]))
    np.maximum(radius, np.float32(SMALLEST_UNIFORM), out=radius)
    np.log(radius, out=radius)
    radius *= np.float32(-2.0)
    np.sqrt(radius, out=radius)
    angle *= np.float32(TWO_PI)
    normal = np.empty(words.shape, np.float32)
    np.multiply(radius, np.cos(angle), out=normal[:, 0::2])
    np.multiply(radius, np.sin(angle, out=angle), out=normal[:, 1::2])
    return normal


def _draw(
    seed: torch.Tensor,
    row: torch.Tensor,
    line: torch.Tensor,
    stream: torch.Tensor | int,
    n: int,
    transform: _Transform,
) -> torch.Tensor:
    lines = _Lines.of(seed, row, line, stream)
    out = np.empty((lines.count, n), np.float32)
    for first, block in _blocks(lines, n):
        out[first : first + len(block)] = transform(block).reshape(len(block), -1)[:, :n]
    return torch.from_numpy(out.reshape(*line.shape, n)).to(seed.device)


@dataclass(frozen=True)
class _Lines:
    """Key and upper counter words of every line to draw, each uint64 [lines]."""

    key0: _Array
    key1: _Array
    c1: _Array
    c2: _Array
    c3: _Array

    @staticmethod
    def of(seed: torch.Tensor, row: torch.Tensor, line: torch.Tensor, stream: torch.Tensor | int) -> _Lines:
        steps = line.numel() // max(1, seed.numel())
        stream_words = stream if isinstance(stream, torch.Tensor) else torch.full_like(seed, stream)
        key, c3, c2 = (np.repeat(_unsigned(t), steps) for t in (seed, row, stream_words))
        return _Lines(key & _MASK, key >> _HALF, _unsigned(line) & _MASK, c2 & _MASK, c3 & _MASK)

    @property
    def count(self) -> int:
        return len(self.key0)

    def slice(self, first: int, end: int) -> tuple[_Array, ...]:
        return tuple(array[first:end] for array in (self.key0, self.key1, self.c1, self.c2, self.c3))


def _unsigned(tensor: torch.Tensor) -> _Array:
    flat = tensor.detach().to("cpu", torch.int64).reshape(-1).contiguous()
    return flat.numpy().view(np.uint64)


def _blocks(lines: _Lines, n: int) -> Iterator[tuple[int, npt.NDArray[np.uint32]]]:
    """Yield (first line, words uint32 [lines, 4, Q]) in chunks that fit a cache."""
    counters = counters_per_row(n)
    step = max(1, _CHUNK_COUNTERS // max(1, counters))
    for first in range(0, lines.count, step) if n else ():
        chunk = lines.slice(first, first + step)
        words = np.empty((len(chunk[0]), 4, counters), np.uint32)
        for begin in range(0, counters, _CHUNK_COUNTERS):
            index = np.arange(begin, min(begin + _CHUNK_COUNTERS, counters), dtype=np.uint64)
            _fill(words[:, :, begin : begin + len(index)], index, chunk)
        yield first, words


def _fill(out: npt.NDArray[np.uint32], index: _Array, lines: tuple[_Array, ...]) -> None:
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
    c0: _Array, key0: _Array, key1: _Array, c1: _Array, c2: _Array, c3: _Array
) -> tuple[_Array, _Array, _Array, _Array]:
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


def _round_keys(key0: _Array, key1: _Array) -> _Array:
    """Return the keys of every round, uint64 [2, ROUNDS, *key shape]."""
    first = np.stack((key0, key1))[:, None]
    return (first + _ROUND_INCREMENTS.reshape(2, ROUNDS, *(1,) * key0.ndim)) & _MASK


def _first_two_rounds(c0: _Array, c1: _Array, c2: _Array, c3: _Array, keys: _Array) -> tuple[_Array, _Array]:
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


@jit()
def normals_of_counters(
    seed: tl.tensor, counter: tl.tensor, line: tl.tensor, stream: tl.tensor, row: tl.tensor
) -> tl.tensor:
    """Return the normals of the four lanes of each counter; ``counter`` int32 [block], the others scalars."""
    w0, w1, w2, w3 = words_of_counters(seed, counter, line, stream, row)
    z0, z1 = tl.pair_uniform_to_normal(tl.uint_to_uniform_float(w0), tl.uint_to_uniform_float(w1))
    z2, z3 = tl.pair_uniform_to_normal(tl.uint_to_uniform_float(w2), tl.uint_to_uniform_float(w3))
    return z0, z1, z2, z3


@jit()
def words_of_counters(
    seed: tl.tensor, counter: tl.tensor, line: tl.tensor, stream: tl.tensor, row: tl.tensor
) -> tl.tensor:
    """Return the four uint32 words of each counter."""
    c1 = tl.full(counter.shape, line, tl.int64).to(tl.int32)
    c2 = tl.full(counter.shape, stream, tl.int64).to(tl.int32)
    c3 = tl.full(counter.shape, row, tl.int64).to(tl.int32)
    return tl.philox(seed, counter, c1, c2, c3)
