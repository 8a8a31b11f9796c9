"""Uniforms with 53 bits from Philox words, and choices by inverse cumulative distribution."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.philox import STREAMS_PER_PARTICLE, philox_words
from serving.families.autoregressive.symbols import Ids
from serving.families.request import Request

Floats = NDArray[np.float64]


def uniforms(request: Request, row: Ids, line: Ids, stream: int, particle: Ids) -> Floats:
    """One uniform in (0, 1) for each entry of ``row`` (index within the request), float64.

    ``line``: the position that it decides; ``particle``: particle or completion. All [n] int64.
    """
    return _fractions(_words(request, row, line, stream, particle, 2))


def stratified(request: Request, row: Ids, line: Ids, stream: int, particle: Ids, count: int) -> Floats:
    """``count`` uniforms for each entry, [n, count]: one in each stratum of width 1 / count, shuffled.

    Each is uniform on (0, 1) by itself (McKay, Beckman and Conover 1979, Latin hypercube sampling).
    """
    words = _words(request, row, line, stream, particle, 2 + count)
    stratum = np.argsort(np.argsort(words[:, 2:], axis=1, kind="stable"), axis=1)
    return np.asarray((stratum + _fractions(words)[:, None]) / count)


def _words(request: Request, row: Ids, line: Ids, stream: int, particle: Ids, count: int) -> Ids:
    seed = torch.full((len(row),), signed(request.seed), dtype=torch.int64)
    rows = torch.from_numpy(row + request.first_row)
    streams = torch.from_numpy(stream + STREAMS_PER_PARTICLE * particle)
    words: Ids = philox_words(seed, rows, torch.from_numpy(line), streams, count).numpy()
    return words


def _fractions(words: Ids) -> Floats:
    """53 bits of the first two words, in (0, 1)."""
    high, low = words[:, 0] >> 5, words[:, 1] >> 6
    return np.asarray((high * 67_108_864.0 + low + 0.5) / 9_007_199_254_740_992.0)


def signed(seed: int) -> int:
    """The int64 with the same 64 bits."""
    return seed - (1 << 64) if seed >= 1 << 63 else seed


def choose(log_law: Floats, uniform: Floats) -> Ids:
    """Index drawn from each law [n, choices] (nats, need not be normalised) by its uniform [n]."""
    weights = np.exp(log_law - log_law.max(axis=1, keepdims=True))
    cumulative = np.cumsum(weights, axis=1)
    return below(cumulative, uniform * cumulative[:, -1])


def below(cumulative: Floats, target: Floats) -> Ids:
    """The first index of each row whose cumulative mass exceeds ``target``; never one without mass."""
    index = (cumulative <= target[:, None]).sum(axis=1)
    last = (cumulative < cumulative[:, -1:]).sum(axis=1)
    return np.asarray(np.minimum(index, last), np.int64)
